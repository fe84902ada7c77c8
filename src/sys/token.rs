//! What wakes the loop, and the number that the poll carries for it: the kind above, an id or pid
//! below.
use super::Wake;
use mio::Token as Number;

const KIND_SHIFT: u32 = 32;
const SIGNALS: usize = 0;
const LISTENER: usize = 1;
const REMOVALS: usize = 2;
const CLOCK: usize = 3;
const CLIENT: usize = 4;
const PUMP: usize = 5;
const LEADER: usize = 6;
const LAUNCH: usize = 7;
const MEMBER: usize = 8;
const LOGS: usize = 9;
const FILES: usize = 12;
const NOTIFY: usize = 13;
const READY: usize = 14;
const HEALTH: usize = 15;

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
    /// What tells whether this service is ready.
    Ready(u32),
    /// What tells whether it is well.
    Health(u32),
    /// A FIFO that a service writes to, or what its lines go to.
    Pump(u32),
    /// The files of this service that are watched.
    Files(u32),
    /// A process of a service.
    Wake(Wake),
}

impl From<Token> for Number {
    fn from(token: Token) -> Self {
        let (kind, value) = match token {
            Token::Signals => (SIGNALS, 0),
            Token::Listener => (LISTENER, 0),
            Token::Removals => (REMOVALS, 0),
            Token::Clock => (CLOCK, 0),
            Token::Logs => (LOGS, 0),
            Token::Client(id) => (CLIENT, id),
            Token::Notify => (NOTIFY, 0),
            Token::Ready(id) => (READY, id),
            Token::Health(id) => (HEALTH, id),
            Token::Pump(number) => (PUMP, number),
            Token::Files(id) => (FILES, id),
            Token::Wake(Wake::Leader(id)) => (LEADER, id),
            Token::Wake(Wake::Launch(id)) => (LAUNCH, id),
            Token::Wake(Wake::Member(pid)) => (MEMBER, pid.cast_unsigned()),
        };
        Self(kind << KIND_SHIFT | value as usize)
    }
}

impl Token {
    /// What has this number, if anything.
    pub fn of(number: Number) -> Option<Self> {
        let value = (number.0 & 0xffff_ffff) as u32;
        Some(match number.0 >> KIND_SHIFT {
            SIGNALS => Self::Signals,
            LISTENER => Self::Listener,
            REMOVALS => Self::Removals,
            CLOCK => Self::Clock,
            LOGS => Self::Logs,
            CLIENT => Self::Client(value),
            NOTIFY => Self::Notify,
            READY => Self::Ready(value),
            HEALTH => Self::Health(value),
            PUMP => Self::Pump(value),
            FILES => Self::Files(value),
            LEADER => Self::Wake(Wake::Leader(value)),
            LAUNCH => Self::Wake(Wake::Launch(value)),
            MEMBER => Self::Wake(Wake::Member(value.cast_signed())),
            _ => return None,
        })
    }
}
