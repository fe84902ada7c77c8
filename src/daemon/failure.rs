//! Why a daemon cannot serve, or a request is refused.

/// Exit code and one line.
pub(crate) type Failure = (u8, String);
