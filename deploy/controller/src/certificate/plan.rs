//! What is to be done about the kept certificate at this moment. Pure. Called by the room's door.
//!
//! A life of ninety days: from two thirds of it on there is a next one, which is published. When the
//! registration has held it for some minutes, so that every API server has heard of it, it is
//! served. What it took the place of stays published for an hour, for a replica that is behind.
//!
//! Never: a certificate promoted that the registration does not hold, unless there is nothing else.

// SPDX-License-Identifier: Apache-2.0

use super::kept::{Kept, Pair};

/// Three months: long enough for outages of the API, short enough for a lost Secret.
pub(super) const LIFE_SECONDS: u64 = 90 * 24 * 60 * 60;

/// How long the registration holds a certificate before it is served. API servers hear of a changed
/// registration within seconds.
pub(super) const PUBLISHED_SECONDS: u64 = 5 * 60;

/// How long what is served no more stays published: a replica that cannot reach the API and is
/// reached by it serves it until it hears.
pub(super) const BEFORE_SECONDS: u64 = 60 * 60;

/// Certificates are made as of an hour ago, for clocks that are behind.
pub(super) const SKEW_SECONDS: u64 = 60 * 60;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Keep,
    /// There is nothing that could be served: a first one.
    First,
    /// The Secret lost what we serve: it is put back, with a next one beside it.
    Restore,
    /// We serve what the Secret does not know any more: it is published until we do not.
    Remember,
    /// A next one is made and published.
    Prepare,
    /// The next one is served.
    Promote,
    /// What nobody serves any more is published no more.
    Forget,
}

/// What is known at this moment.
pub(super) struct View<'v> {
    pub(super) kept: Option<&'v Kept>,
    /// What this replica serves.
    pub(super) served: Option<&'v Pair>,
    /// By which the API server dials us.
    pub(super) names: &'v [String],
    /// Since when the registration has held the next one, as far as we saw it.
    pub(super) next_published: Option<u64>,
    pub(super) now: u64,
}

impl View<'_> {
    pub(super) fn step(&self) -> Step {
        let served = self.served.filter(|served| self.fits(served));
        let Some(kept) = self.kept else {
            return if served.is_some() { Step::Restore } else { Step::First };
        };
        let next = kept.next.as_ref();
        let usable = next.filter(|next| self.fits(next) && next.not_before <= self.now);
        if !self.fits(&kept.serving) {
            return match (usable, served) {
                (Some(_), _) => Step::Promote,
                (None, Some(_)) => Step::Restore,
                (None, None) => Step::First,
            };
        }
        let known = |pair: &Pair| kept.published().any(|one| one == pair.certificate);
        if served.is_some_and(|served| !known(served)) {
            return Step::Remember;
        }
        let over = |since: u64| self.now >= since + PUBLISHED_SECONDS;
        match (next, usable) {
            (Some(_), Some(_)) if self.next_published.is_some_and(over) => return Step::Promote,
            (Some(_), Some(_)) => {}
            (Some(_), None) => return Step::Prepare,
            (None, _) if self.is_due(&kept.serving) => return Step::Prepare,
            (None, _) => {}
        }
        let forgotten = !kept.before.is_empty() && self.now >= kept.before_until;
        if forgotten { Step::Forget } else { Step::Keep }
    }

    /// Whether the API server can believe it, as far as we know its clock.
    fn fits(&self, pair: &Pair) -> bool {
        self.now < pair.not_after && self.names.iter().all(|name| pair.names.contains(name))
    }

    /// After two thirds of its life; or its maker's clock was ahead.
    fn is_due(&self, pair: &Pair) -> bool {
        let life = pair.not_after.saturating_sub(pair.not_before);
        self.now >= pair.not_before + life / 3 * 2 || self.now < pair.not_before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 24 * 60 * 60;
    const NOW: u64 = 1_000 * DAY;

    fn pair(certificate: &str, not_before: u64, not_after: u64) -> Pair {
        let (certificate, key) = (certificate.to_owned(), String::new());
        Pair { certificate, key, names: vec!["svc".to_owned()], not_before, not_after }
    }

    fn fresh(certificate: &str) -> Pair {
        pair(certificate, NOW - DAY, NOW + 89 * DAY)
    }

    fn step(kept: Option<Kept>, served: Option<Pair>, next_published: Option<u64>) -> Step {
        let (kept, served) = (kept.as_ref(), served.as_ref());
        View { kept, served, names: &["svc".to_owned()], next_published, now: NOW }.step()
    }

    fn with_next(next: Pair) -> Option<Kept> {
        Some(Kept { next: Some(next), ..Kept::only(fresh("a")) })
    }

    #[test]
    fn each_state_has_its_step() {
        let only = |pair: Pair| Some(Kept::only(pair));
        let before = |until: u64| Some(Kept::only(fresh("a")).remembering("z".to_owned(), until));
        let ended = pair("a", NOW - 90 * DAY, NOW);
        let elsewhere = Pair { names: vec!["other".to_owned()], ..fresh("a") };
        for (what, kept, served, expected) in [
            ("nothing", None, None, Step::First),
            ("gone", None, Some(fresh("a")), Step::Restore),
            ("gone, and ours has ended", None, Some(ended.clone()), Step::First),
            ("fresh", only(fresh("a")), None, Step::Keep),
            ("fresh and served", only(fresh("a")), Some(fresh("a")), Step::Keep),
            ("another one", only(fresh("a")), Some(fresh("b")), Step::Remember),
            ("another that has ended", only(fresh("b")), Some(ended.clone()), Step::Keep),
            ("ended", only(ended.clone()), Some(ended.clone()), Step::First),
            ("ended, ours not", only(ended), Some(fresh("b")), Step::Restore),
            ("another name", only(elsewhere), None, Step::First),
            ("due", only(pair("a", NOW - 60 * DAY, NOW + 30 * DAY)), None, Step::Prepare),
            ("not due", only(pair("a", NOW - 60 * DAY + 1, NOW + 30 * DAY + 1)), None, Step::Keep),
            ("made ahead", only(pair("a", NOW + 1, NOW + 90 * DAY)), None, Step::Prepare),
            ("still published", before(NOW + 1), None, Step::Keep),
            ("published long enough", before(NOW), None, Step::Forget),
        ] {
            assert_eq!(step(kept, served, None), expected, "{what}");
        }
    }

    #[test]
    fn the_next_one_is_served_only_when_it_was_published_long_enough() {
        let next = || fresh("b");
        for (published, expected) in [
            (None, Step::Keep),
            (Some(NOW), Step::Keep),
            (Some(NOW - PUBLISHED_SECONDS + 1), Step::Keep),
            (Some(NOW - PUBLISHED_SECONDS), Step::Promote),
        ] {
            assert_eq!(step(with_next(next()), Some(fresh("a")), published), expected);
        }
        let long = Some(NOW - DAY);
        assert_eq!(step(with_next(pair("b", 0, NOW)), None, long), Step::Prepare, "has ended");
        let early = pair("b", NOW + 1, NOW + DAY);
        assert_eq!(step(with_next(early.clone()), None, long), Step::Prepare, "not valid yet");
        // Published or not: there is nothing else.
        let ended = pair("a", NOW - 90 * DAY, NOW);
        let only_next = Kept { next: Some(next()), ..Kept::only(ended.clone()) };
        assert_eq!(step(Some(only_next), None, None), Step::Promote);
        let neither = Kept { next: Some(early), ..Kept::only(ended) };
        assert_eq!(step(Some(neither), None, None), Step::First);
    }
}
