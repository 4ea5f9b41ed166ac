//! What looking at a key does, step by step, told to tests: all keys that are refused have to cost the same.

/// A step whose time could tell something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// A record was looked for; that many bytes of an id.
    Find(usize),
    /// A text of that many bytes was hashed.
    Hash(usize),
    /// Two hashes of that many bytes were compared, all of them.
    Compare(usize),
    /// It was looked at how a record stands.
    Stand,
}

/// Costs nothing but in tests.
#[cfg(not(test))]
pub(super) fn took(_: Step) {}

#[cfg(test)]
thread_local! {
    static TAKEN: std::cell::RefCell<Vec<Step>> = const { std::cell::RefCell::new(Vec::new()) };
}

#[cfg(test)]
pub(super) fn took(step: Step) {
    TAKEN.with_borrow_mut(|taken| taken.push(step));
}

/// What this thread has done since this was asked last.
#[cfg(test)]
pub(super) fn taken() -> Vec<Step> {
    TAKEN.with_borrow_mut(std::mem::take)
}
