//! Trouble on purpose: which requests get which, how often, and what was asked so far.
//!
//! Never: trouble by chance; a test says what happens when.

// SPDX-License-Identifier: Apache-2.0

use std::time::Duration;

/// Requests that are remembered; beyond, the oldest are forgotten.
const MAX_TOLD: usize = 100_000;

/// One request as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub method: String,
    /// With its query.
    pub path: String,
}

/// What befalls a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is not done; this status is the answer. 429 and 503 come with `Retry-After: 0`.
    Answer(u16),
    /// It is not done; this status comes with a word that is no `Status`, as from a proxy on the way.
    Stray(u16),
    /// It is not done, and the connection is closed without an answer.
    Drop,
    /// It is done, and the connection is closed without an answer.
    LoseAnswer,
    /// It is done, and the answer ends one character early as if that were all of it.
    Cut,
    /// It is done after this time.
    Delay(Duration),
}

/// A fault for the next so many requests that it is about.
#[derive(Clone, Debug)]
pub struct Trouble {
    pub fault: Fault,
    pub times: usize,
    /// Empty: any.
    pub method: String,
    /// A part of the path with its query. Empty: any.
    pub path: String,
}

impl Trouble {
    /// For the next requests, whatever they are.
    pub fn next(times: usize, fault: Fault) -> Self {
        Self { fault, times, method: String::new(), path: String::new() }
    }

    /// Only for requests of this method.
    pub fn on(self, method: &str) -> Self {
        Self { method: method.to_owned(), ..self }
    }

    /// Only where the path has this in it.
    pub fn at(self, path: &str) -> Self {
        Self { path: path.to_owned(), ..self }
    }

    fn is_about(&self, request: &Request) -> bool {
        (self.method.is_empty() || self.method == request.method)
            && request.path.contains(&self.path)
    }
}

#[derive(Default)]
pub(crate) struct Faults {
    troubles: Vec<Trouble>,
    told: Vec<Request>,
    pub(crate) vanished: bool,
    pub(crate) vanish_after: Option<usize>,
    pub(crate) gone_as_status: bool,
}

impl Faults {
    pub(crate) fn add(&mut self, trouble: Trouble) {
        self.troubles.push(trouble);
    }

    pub(crate) fn told(&self) -> Vec<Request> {
        self.told.clone()
    }

    pub(crate) fn forget_told(&mut self) {
        self.told.clear();
    }

    pub(crate) fn counting(mut self, told: Vec<Request>) -> Self {
        self.told = told;
        self
    }

    /// What befalls this one; it is counted as spent.
    pub(crate) fn meet(&mut self, request: Request) -> Option<Fault> {
        let fault = self.fault_of(&request);
        self.told.push(request);
        if self.told.len() > MAX_TOLD {
            self.told.remove(0);
        }
        fault
    }

    fn fault_of(&mut self, request: &Request) -> Option<Fault> {
        match &mut self.vanish_after {
            Some(0) => self.vanished = true,
            Some(left) => *left -= 1,
            None => {}
        }
        if self.vanished {
            return Some(Fault::Drop);
        }
        let trouble = self.troubles.iter_mut().find(|it| it.times > 0 && it.is_about(request))?;
        trouble.times -= 1;
        Some(trouble.fault.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str, path: &str) -> Request {
        Request { method: method.to_owned(), path: path.to_owned() }
    }

    #[test]
    fn trouble_meets_what_it_is_about_as_often_as_it_says() {
        let mut faults = Faults::default();
        faults.add(Trouble::next(2, Fault::Answer(409)).on("PUT").at("/secrets/"));
        assert_eq!(faults.meet(request("GET", "/secrets/a")), None);
        assert_eq!(faults.meet(request("PUT", "/pods/a")), None);
        for _ in 0..2 {
            assert_eq!(faults.meet(request("PUT", "/secrets/a")), Some(Fault::Answer(409)));
        }
        assert_eq!(faults.meet(request("PUT", "/secrets/a")), None);
        assert_eq!(faults.told().len(), 5);
        faults.vanish_after = Some(1);
        assert_eq!(faults.meet(request("GET", "/a")), None);
        assert_eq!(faults.meet(request("GET", "/a")), Some(Fault::Drop));
    }
}
