//! What comes of a reply: what was asked for, or why something is not done, which commands and the
//! daemon say in the same way.
use super::{Env, Finding, Health, Info, LogFiles, Reply, Row, Spec, Why, code};

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

/// What a request was made for, out of its reply; of another kind the reply itself.
macro_rules! held {
    ($($kind:ident: $what:ty,)*) => {$(
        impl TryFrom<Reply> for $what {
            type Error = Reply;

            fn try_from(reply: Reply) -> Result<Self, Reply> {
                if let Reply::$kind(what) = reply { Ok(what) } else { Err(reply) }
            }
        }
    )*};
}
held! {
    List: Vec<Row>,
    Info: Vec<Info>,
    Why: Vec<Why>,
    Env: Vec<(String, Env)>,
    Specs: Vec<Spec>,
    Logs: Vec<LogFiles>,
    Health: Health,
    Doctor: Vec<Finding>,
}
