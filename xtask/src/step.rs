//! The step lines a chore prints, `[2/3] the plugins`. They go to standard
//! error, like cargo's own progress, so that standard output stays with the
//! program that is run.

/// Counts the steps of one chore.
pub(crate) struct Steps {
    done: usize,
    all: usize,
}

impl Steps {
    /// A chore of `all` steps.
    pub(crate) fn new(all: usize) -> Self {
        Self { done: 0, all }
    }

    /// Announces the next step, before it is taken.
    pub(crate) fn next(&mut self, what: &str) {
        self.done += 1;
        eprintln!("[{}/{}] {what}", self.done, self.all);
    }
}
