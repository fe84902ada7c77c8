//! What wakes the loop, and the number that the poll carries for it: the kind above, an id or pid
//! below.
use super::{Result, Wake, errno_of};
use crate::service::probe::Question;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token as Number};
use rustix::fd::AsRawFd;

const KIND_SHIFT: u32 = 32;

/// A descriptor that the loop watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token {
    /// The signalfd.
    Signals,
    /// The socket that commands connect to.
    Listener,
    /// Something in the home was removed.
    Removals,
    /// The wall clock was set, or the machine slept.
    Clock,
    /// Logs were written to.
    Logs,
    /// A connection.
    Client(u32),
    /// The socket that services tell of themselves over.
    Notify,
    /// What tells whether this service is ready, or well.
    Check(Question, u32),
    /// A FIFO that a service writes to, or what its lines go to.
    Pump(u32),
    /// The files of this service that are watched.
    Files(u32),
    /// A process of a service.
    Wake(Wake),
}

/// By its place a kind has its number.
const KINDS: [fn(u32) -> Token; 14] = [
    |_| Token::Signals,
    |_| Token::Listener,
    |_| Token::Removals,
    |_| Token::Clock,
    |_| Token::Logs,
    |_| Token::Notify,
    Token::Client,
    |id| Token::Check(Question::Ready, id),
    |id| Token::Check(Question::Health, id),
    Token::Pump,
    Token::Files,
    |id| Token::Wake(Wake::Leader(id)),
    |id| Token::Wake(Wake::Launch(id)),
    |pid| Token::Wake(Wake::Member(pid.cast_signed())),
];

impl From<Token> for Number {
    fn from(token: Token) -> Self {
        let value = match token {
            Token::Signals | Token::Listener | Token::Removals => 0,
            Token::Clock | Token::Logs | Token::Notify => 0,
            Token::Client(id) | Token::Check(_, id) | Token::Pump(id) | Token::Files(id) => id,
            Token::Wake(Wake::Leader(id) | Wake::Launch(id)) => id,
            Token::Wake(Wake::Member(pid)) => pid.cast_unsigned(),
        };
        let kind = KINDS.iter().position(|kind| kind(value) == token);
        Self(kind.unwrap_or(KINDS.len()) << KIND_SHIFT | value as usize)
    }
}

impl Token {
    /// What has this number, if anything.
    pub fn of(number: Number) -> Option<Self> {
        let kind = KINDS.get(number.0 >> KIND_SHIFT)?;
        Some(kind((number.0 & 0xffff_ffff) as u32))
    }

    /// Has a descriptor watched that becomes readable. Errors: EEXIST, ENOSPC, ENOMEM.
    pub fn watch(self, registry: &Registry, fd: &impl AsRawFd) -> Result<()> {
        let number = self.into();
        let watched = registry.register(&mut SourceFd(&fd.as_raw_fd()), number, Interest::READABLE);
        watched.map_err(|error| errno_of(&error))
    }
}
