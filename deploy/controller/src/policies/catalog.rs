//! All policies as the API server last told, and what follows from them for one workload. Pure. Called
//! by `hub`.
//!
//! Never: leaves a policy out because it is not known whether it is about a workload.

// SPDX-License-Identifier: Apache-2.0

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;

use myelin_identity::id::TrustDomain;
use serde_json::Value;

use super::authentication::Authentication;
use super::authorization::{Author, Authorization, Effect};
use super::compile::{Compiled, compile};
use super::demands::{Demands, Level, Ranked};
use super::fields::{Target, Targets, Wrong};
use super::objects::{Key, Kind, Pod, Policy, Service};
use super::status::{Condition, Verdict};
use super::workloads::{Caller, Workloads};
use crate::cluster::News;

/// PeerAuthentications that are judged one by one for a pod that is not known: each costs as much as all
/// that are certain.
const MAX_POSSIBLE: usize = 64;

/// On what a policy depends, beside the policies: whoever has the same is told the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Subject {
    account: Option<(String, String)>,
    services: Behind,
}

/// Behind which Services, of those that policies name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Behind {
    These(BTreeSet<String>),
    /// Its pod is not known: it may be any.
    Unknown,
}

/// For whom something else may be true now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Touched {
    pub(super) everybody: bool,
    /// Workloads of these namespaces.
    pub(super) namespaces: BTreeSet<String>,
    pub(super) addresses: HashSet<IpAddr>,
    /// What may have to be said in the policies' own status.
    pub(super) policies: BTreeSet<(Kind, Key)>,
}

pub(super) struct Catalog {
    trust_domain: TrustDomain,
    /// The mesh's own namespace: without targets, its policies are about the whole mesh.
    root: String,
    authentications: BTreeMap<Key, Held<Authentication>>,
    authorizations: BTreeMap<Key, Held<Authorization>>,
    /// Those that are not accepted: counted anew at each event, all policies would cost too much.
    refused: BTreeMap<Kind, BTreeSet<Key>>,
    workloads: Workloads,
}

/// A policy, and what its status says.
struct Held<P> {
    policy: P,
    generation: i64,
    condition: Option<Condition>,
}

/// What both kinds have.
pub(super) trait Selects: PartialEq {
    fn targets(&self) -> &Targets;
    fn wrong(&self) -> Option<&Wrong>;
}

impl Selects for Authentication {
    fn targets(&self) -> &Targets {
        &self.targets
    }

    fn wrong(&self) -> Option<&Wrong> {
        self.wrong.as_ref()
    }
}

impl Selects for Authorization {
    fn targets(&self) -> &Targets {
        &self.targets
    }

    fn wrong(&self) -> Option<&Wrong> {
        self.wrong.as_ref()
    }
}

impl Catalog {
    pub(super) fn new(trust_domain: TrustDomain, root: String) -> Self {
        Self {
            trust_domain,
            root,
            authentications: BTreeMap::new(),
            authorizations: BTreeMap::new(),
            refused: BTreeMap::new(),
            workloads: Workloads::default(),
        }
    }

    pub(super) fn policies(&mut self, kind: Kind, news: News<Policy>) -> Touched {
        let mut touched = Touched { everybody: matches!(news, News::All(_)), ..Touched::default() };
        match news {
            News::All(policies) => {
                let before = match kind {
                    Kind::Authentication => drained(&mut self.authentications),
                    Kind::Authorization => drained(&mut self.authorizations),
                };
                touched.policies.extend(before.into_iter().map(|key| (kind, key)));
                policies.iter().for_each(|policy| self.put(kind, policy, &mut touched));
            }
            News::Now(policy) => self.put(kind, &policy, &mut touched),
            News::Gone(meta) => {
                let key = Key::new(&meta.namespace, &meta.name);
                match kind {
                    Kind::Authentication => drop(self.authentications.remove(&key)),
                    Kind::Authorization => drop(self.authorizations.remove(&key)),
                }
                self.touch(key.namespace.clone(), &mut touched);
                touched.policies.insert((kind, key));
            }
        }
        self.count_again(&touched.policies);
        touched
    }

    fn put(&mut self, kind: Kind, policy: &Policy, touched: &mut Touched) {
        let (key, generation) = (policy.key(), policy.metadata.generation);
        let condition = policy.condition();
        let is_new = match kind {
            Kind::Authentication => {
                let policy = Authentication::read(&policy.spec);
                let held = Held { policy, generation, condition };
                let before = self.authentications.insert(key.clone(), held);
                before.is_none_or(|it| it.policy != self.authentications[&key].policy)
            }
            Kind::Authorization => {
                let policy = self.authorization(&key, &policy.spec);
                let held = Held { policy, generation, condition };
                let before = self.authorizations.insert(key.clone(), held);
                before.is_none_or(|it| it.policy != self.authorizations[&key].policy)
            }
        };
        if is_new {
            self.touch(key.namespace.clone(), touched);
        }
        touched.policies.insert((kind, key));
    }

    fn authorization(&self, key: &Key, spec: &Value) -> Authorization {
        let name = format!("{}/{}", key.namespace, key.name);
        let (trust_domain, namespace) = (&self.trust_domain, key.namespace.as_str());
        Authorization::read(spec, &Author { trust_domain, namespace, name: &name })
    }

    fn touch(&self, namespace: String, touched: &mut Touched) {
        // Whether it was about the whole mesh, nobody remembers.
        touched.everybody |= namespace == self.root;
        touched.namespaces.insert(namespace);
    }

    pub(super) fn services(&mut self, news: News<Service>) -> Touched {
        let is_all = matches!(news, News::All(_));
        let changed = self.workloads.services(news);
        let is_named = |namespace: &str, target: &Target| match target {
            Target::Service(name) => changed.contains(&Key::new(namespace, name)),
            Target::Account(_) => false,
        };
        let policies = self.naming(|namespace, targets| match targets {
            Targets::These(these) => is_all || these.iter().any(|it| is_named(namespace, it)),
            Targets::All | Targets::Unknown => false,
        });
        let namespaces = policies.iter().map(|(_, key)| key.namespace.clone()).collect();
        self.count_again(&policies);
        Touched { everybody: is_all, namespaces, policies, ..Touched::default() }
    }

    /// The policies whose namespace and targets are such.
    fn naming(&self, is: impl Fn(&str, &Targets) -> bool) -> BTreeSet<(Kind, Key)> {
        let of =
            |kind, key: &Key, targets| is(&key.namespace, targets).then(|| (kind, key.clone()));
        let (one, other) = (self.authentications.iter(), self.authorizations.iter());
        let one = one.filter_map(|(key, it)| of(Kind::Authentication, key, &it.policy.targets));
        let other = other.filter_map(|(key, it)| of(Kind::Authorization, key, &it.policy.targets));
        one.chain(other).collect()
    }

    pub(super) fn pods(&mut self, news: News<Pod>) -> Touched {
        let everybody = matches!(news, News::All(_));
        let addresses = self.workloads.pods(news);
        Touched { everybody, addresses, ..Touched::default() }
    }

    pub(super) fn subject(&self, caller: &Caller) -> Subject {
        let services = match &caller.account {
            // No pod has it, so no Service selects it.
            None => Behind::These(BTreeSet::new()),
            Some((namespace, _)) => self
                .workloads
                .pod_of(caller)
                .map_or(Behind::Unknown, |pod| self.behind(namespace, pod)),
        };
        Subject { account: caller.account.clone(), services }
    }

    fn behind(&self, namespace: &str, pod: &Pod) -> Behind {
        let mut named = BTreeSet::new();
        let mut note = |targets: &Targets| {
            let Targets::These(these) = targets else { return };
            named.extend(these.iter().filter_map(|target| match target {
                Target::Service(name) => Some(name.clone()),
                Target::Account(_) => None,
            }));
        };
        of(&self.authentications, namespace).for_each(|held| note(&held.policy.targets));
        of(&self.authorizations, namespace).for_each(|held| note(&held.policy.targets));
        named.retain(|name| self.workloads.is_behind(&Key::new(namespace, name), pod));
        Behind::These(named)
    }

    pub(super) fn compile(&self, subject: &Subject) -> Compiled {
        let demands = self.demands(subject);
        let about = self.about(&self.authorizations, subject);
        let effects: Vec<Cow<'_, Effect>> = about
            .into_iter()
            .flat_map(|(_, policy, certain)| policy.effects.iter().map(move |it| (it, certain)))
            .filter_map(|(effect, certain)| match certain {
                true => Some(Cow::Borrowed(effect)),
                false => effect.at_the_worst(),
            })
            .collect();
        compile(&demands, effects.iter().map(Cow::as_ref))
    }

    /// The worst of what it may be: behind none of the possible Services, or behind one of them. Behind
    /// several it is at most as strict as behind the strictest.
    fn demands(&self, subject: &Subject) -> Demands {
        let about = self.about(&self.authentications, subject);
        let (certain, possible): (Vec<_>, Vec<_>) =
            about.into_iter().partition(|(.., certain)| *certain);
        let mut ranked = Ranked::default();
        certain.into_iter().for_each(|(level, policy, _)| ranked.add(level, policy));
        if possible.len() > MAX_POSSIBLE {
            ranked.add_unknown();
            return ranked.demands();
        }
        let worst = ranked.clone().demands();
        possible.into_iter().fold(worst, |worst, (level, policy, _)| {
            let mut with_it = ranked.clone();
            with_it.add(level, policy);
            worst.either(&with_it.demands())
        })
    }

    /// Those that are about it, and those that may be if its pod is unknown (`false` in the end).
    fn about<'p, P: Selects>(
        &self,
        all: &'p BTreeMap<Key, Held<P>>,
        subject: &Subject,
    ) -> Vec<(Level, &'p P, bool)> {
        let mesh = of(all, &self.root).filter(|held| match held.policy.targets() {
            // What cannot be read only restricts, and any workload may be meant.
            Targets::All | Targets::Unknown => true,
            Targets::These(_) => false,
        });
        let mut about: Vec<_> = mesh.map(|held| (Level::Mesh, &held.policy, true)).collect();
        let Some((namespace, account)) = &subject.account else { return about };
        for held in of(all, namespace) {
            let policy = &held.policy;
            match policy.targets() {
                Targets::All if *namespace == self.root => {}
                Targets::All => about.push((Level::Namespace, policy, true)),
                Targets::Unknown => about.push((Level::Target, policy, true)),
                Targets::These(these) => {
                    let is_named = |target: &Target| match (target, &subject.services) {
                        (Target::Account(name), _) => Some(name == account),
                        (Target::Service(name), Behind::These(behind)) => {
                            Some(behind.contains(name))
                        }
                        (Target::Service(_), Behind::Unknown) => None,
                    };
                    if these.iter().any(|target| is_named(target) == Some(true)) {
                        about.push((Level::Target, policy, true));
                    } else if these.iter().any(|target| is_named(target).is_none()) {
                        about.push((Level::Target, policy, false));
                    }
                }
            }
        }
        about
    }

    /// What should be said of a policy, its generation, and what is said.
    pub(super) fn verdict(&self, kind: Kind, key: &Key) -> Option<(Verdict, Option<Condition>)> {
        match kind {
            Kind::Authentication => self.verdict_of(key, self.authentications.get(key)?),
            Kind::Authorization => self.verdict_of(key, self.authorizations.get(key)?),
        }
    }

    fn verdict_of<P: Selects>(
        &self,
        key: &Key,
        held: &Held<P>,
    ) -> Option<(Verdict, Option<Condition>)> {
        let selector = |name: &str| self.workloads.selector(&Key::new(&key.namespace, name));
        let (targets, wrong) = (held.policy.targets(), held.policy.wrong());
        let verdict = Verdict::of(held.generation, targets, wrong, selector);
        Some((verdict, held.condition.clone()))
    }

    /// Of those of which something else may have to be said.
    fn count_again(&mut self, touched: &BTreeSet<(Kind, Key)>) {
        for (kind, key) in touched {
            let is_refused = self.verdict(*kind, key).is_some_and(|(it, _)| !it.is_accepted());
            let refused = self.refused.entry(*kind).or_default();
            match is_refused {
                true => drop(refused.insert(key.clone())),
                false => drop(refused.remove(key)),
            }
        }
    }

    /// How many of a kind are accepted, and how many not.
    pub(super) fn count(&self, kind: Kind) -> [usize; 2] {
        let all = match kind {
            Kind::Authentication => self.authentications.len(),
            Kind::Authorization => self.authorizations.len(),
        };
        let refused = self.refused.get(&kind).map_or(0, BTreeSet::len);
        [all - refused, refused]
    }
}

fn drained<P>(all: &mut BTreeMap<Key, P>) -> Vec<Key> {
    std::mem::take(all).into_keys().collect()
}

/// Those of one namespace.
fn of<'p, P>(
    all: &'p BTreeMap<Key, Held<P>>,
    namespace: &str,
) -> impl Iterator<Item = &'p Held<P>> {
    let namespace = namespace.to_owned();
    let there = all.range(Key::new(&namespace, "")..);
    there.take_while(move |(key, _)| key.namespace == namespace).map(|(_, held)| held)
}
