//! Why something is not done: said by a command, answered by the daemon, or the end of either.
use super::{Reply, code};

/// An exit code of [`code`], and one line `subject: reason (what to do)` without the leading
/// `opm: `. No line: the command ends quietly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub code: u8,
    pub text: String,
}

impl Failure {
    pub fn new(code: u8, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }

    /// Exit code 1.
    pub fn plain(text: impl Into<String>) -> Self {
        Self::new(code::FAILED, text)
    }

    /// Exit code 2.
    pub fn usage(text: impl Into<String>) -> Self {
        Self::new(code::USAGE, text)
    }

    /// Exit code 4.
    pub fn unreachable(text: impl Into<String>) -> Self {
        Self::new(code::UNREACHABLE, text)
    }
}

impl From<Failure> for Reply {
    fn from(Failure { code, text }: Failure) -> Self {
        Self::Failed { code, text }
    }
}
