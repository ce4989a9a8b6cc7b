//! Who may do what, in the little of it that shows whether a role is wide enough: verbs, resources,
//! names. There are no users.
//!
//! Never: a wildcard; a role that needs one is too wide.

// SPDX-License-Identifier: Apache-2.0

use serde_json::{Value, json};

use crate::path::Target;
use crate::status::Refused;

/// One rule of a role.
#[derive(Clone, Debug)]
pub struct Rule {
    pub group: String,
    /// With its subresource behind a slash, such as `pods/status`.
    pub resource: String,
    pub verbs: Vec<String>,
    /// Empty: all names.
    pub names: Vec<String>,
}

impl Rule {
    pub fn new(group: &str, resource: &str, verbs: &[&str], names: &[&str]) -> Self {
        let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        let (verbs, names) = (owned(verbs), owned(names));
        Self { group: group.to_owned(), resource: resource.to_owned(), verbs, names }
    }

    fn allows(&self, verb: &str, target: &Target, name: Option<&str>) -> bool {
        let resource = match &target.subresource {
            Some(subresource) => format!("{}/{subresource}", target.resource.name),
            None => target.resource.name.clone(),
        };
        let named = || name.is_some_and(|name| self.names.iter().any(|known| known == name));
        self.group == target.resource.group
            && self.resource == resource
            && self.verbs.iter().any(|known| known == verb)
            && (self.names.is_empty() || named())
    }
}

/// All of them. None: everything is allowed.
#[derive(Default)]
pub(crate) struct Access {
    rules: Option<Vec<Rule>>,
}

impl Access {
    pub(crate) fn only(&mut self, rules: Vec<Rule>) {
        self.rules = Some(rules);
    }

    /// A SelfSubjectAccessReview with its status; for all names.
    pub(crate) fn review(&self, mut review: Value) -> Value {
        let asked = review["spec"]["resourceAttributes"].clone();
        let is = |field: &str, value: &str| asked[field].as_str().unwrap_or_default() == value;
        let allows = |rule: &Rule| {
            is("group", &rule.group)
                && is("resource", &rule.resource)
                && rule.names.is_empty()
                && rule.verbs.iter().any(|verb| is("verb", verb))
        };
        let allowed = self.rules.as_ref().is_none_or(|rules| rules.iter().any(allows));
        review["status"] = json!({ "allowed": allowed });
        review
    }

    /// `name`: of the object, or the only one that a list or watch selects.
    pub(crate) fn judge(
        &self,
        verb: &str,
        target: &Target,
        name: Option<&str>,
    ) -> Result<(), Refused> {
        let Some(rules) = &self.rules else { return Ok(()) };
        if rules.iter().any(|rule| rule.allows(verb, target, name)) {
            return Ok(());
        }
        let (resource, group) = (&target.resource.name, &target.resource.group);
        let message = format!(
            "{resource} {name:?} is forbidden: cannot {verb} resource {resource:?} in API group {group:?}"
        );
        Err(Refused::new(403, "Forbidden", message))
    }
}
