//! PURE. The journal's bytes: a header, and one fixed slot for each service id.
//!
//! A slot has two halves with a checksum each. The daemon writes the first (goal, counters, what
//! is confirmed gone); the pre-exec child signs the second with its own identity. Fixed places
//! that were written before they are needed can't run out of disk when it counts.
use super::{Exit, Identity, Namespace};

/// Bytes of the header, and of one slot.
pub const HEADER_BYTES: usize = 256;
pub const SLOT_BYTES: usize = 256;
/// Where in its slot the child signs.
pub const SIGNATURE_OFFSET: usize = 128;
/// Bytes of a signature.
pub const SIGNATURE_BYTES: usize = 80;
const HALF_BYTES: usize = 128;
const MAGIC: u64 = u64::from_le_bytes(*b"opm-jrn2");

/// Homes of daemons that left our services which a header has room for.
pub const DEPARTED_MAX: usize = 8;

/// Where slot `id` begins in the journal.
pub fn slot_offset(id: u32) -> u64 {
    HEADER_BYTES as u64 + u64::from(id) * SLOT_BYTES as u64
}

/// Whose journal this is. Records of another machine, boot or PID namespace say nothing about
/// the processes that we see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub machine: u64,
    pub boot: u128,
    pub pid_namespace: u64,
    /// Random, for the marks.
    pub home_key: u64,
    /// Device and inode of the home, to tell a copied one.
    pub home: (u64, u64),
    /// Of the daemon that wrote it.
    pub daemon: Identity,
    /// That daemon was PID 1 of its namespace: nothing that it started outlives its end.
    pub init: bool,
    /// When it began, its cgroup held no process of another PID namespace.
    pub alone: bool,
    /// Homes, as marks say them, whose daemons left our services; 0: none.
    pub departed: [u64; DEPARTED_MAX],
    /// Something may live of which this journal knows nothing: an earlier one was lost.
    pub incomplete: bool,
}

/// The daemon's half of a slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Which line of the definitions this service is; 0: the slot was never used.
    pub definition: u64,
    /// That service was removed, and the slot is free: what is defined in it later has a line
    /// after this one.
    pub removed: bool,
    pub goal_up: bool,
    /// It needs the operator.
    pub failed: bool,
    /// An operator stopped it; else a service that is down went down by itself.
    pub halted: bool,
    /// The highest generation given to this slot's services.
    pub generation: u64,
    /// The highest generation of which the kernel confirmed that nothing lives.
    pub emptied: u64,
    pub restarts: u64,
    pub deaths: u32,
    /// Unix milliseconds; 0 if never.
    pub started_at: u64,
    pub exited_at: u64,
    pub restarted_at: u64,
    pub exit: Option<Exit>,
    /// That was opm's SIGKILL.
    pub by_opm: bool,
}

/// The child's half of a slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Signature {
    pub generation: u64,
    pub leader: Identity,
    /// The daemon that forked it, by pidfd inode (or start time): while it is the same one, every
    /// orphan of the tree came to it.
    pub parent: Identity,
    /// The time namespace that its tree alone is in, if it has one.
    pub namespace: Namespace,
}

/// FNV-1a, 64 bits: against torn writes, not against an adversary.
pub fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Writes little-endian words into a fixed buffer whose last 8 bytes are the checksum. Does not
/// allocate: the child uses it between fork and exec.
struct Writer<const N: usize> {
    bytes: [u8; N],
    at: usize,
}

impl<const N: usize> Writer<N> {
    fn new() -> Self {
        Self { bytes: [0; N], at: 0 }
    }
    fn put(mut self, word: u64) -> Self {
        self.bytes[self.at..self.at + 8].copy_from_slice(&word.to_le_bytes());
        self.at += 8;
        self
    }
    fn put_identity(self, who: &Identity) -> Self {
        self.put(u64::from(who.pid.cast_unsigned())).put(who.start_time).put(who.inode)
    }
    fn seal(mut self) -> [u8; N] {
        let sum = checksum(&self.bytes[..N - 8]);
        self.bytes[N - 8..].copy_from_slice(&sum.to_le_bytes());
        self.bytes
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    /// None if the checksum is wrong; all zero bytes (never written) are wrong too.
    fn open(bytes: &'a [u8]) -> Option<Self> {
        let (body, sum) = bytes.split_last_chunk::<8>()?;
        (checksum(body) == u64::from_le_bytes(*sum)).then_some(Self { bytes: body })
    }
    fn take(&mut self) -> u64 {
        let Some((word, rest)) = self.bytes.split_first_chunk::<8>() else {
            return 0;
        };
        self.bytes = rest;
        u64::from_le_bytes(*word)
    }
    fn take_identity(&mut self) -> Identity {
        let pid = u32::try_from(self.take()).unwrap_or(0).cast_signed();
        Identity { pid, start_time: self.take(), inode: self.take() }
    }
}

impl Header {
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let (high, low) = ((self.boot >> 64) as u64, self.boot as u64);
        let first = Writer::new()
            .put(MAGIC)
            .put(self.machine)
            .put(high)
            .put(low)
            .put(self.pid_namespace)
            .put(self.home_key)
            .put(self.home.0)
            .put(self.home.1)
            .put_identity(&self.daemon)
            .put(
                u64::from(self.init) | u64::from(self.alone) << 1 | u64::from(self.incomplete) << 2,
            );
        self.departed.iter().fold(first, |writer, home| writer.put(*home)).seal()
    }

    /// None if it is damaged or of another format.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut from = Reader::open(bytes.get(..HEADER_BYTES)?)?;
        if from.take() != MAGIC {
            return None;
        }
        let header = Self {
            machine: from.take(),
            boot: (u128::from(from.take()) << 64) | u128::from(from.take()),
            pid_namespace: from.take(),
            home_key: from.take(),
            home: (from.take(), from.take()),
            daemon: from.take_identity(),
            init: false,
            alone: false,
            incomplete: false,
            departed: [0; DEPARTED_MAX],
        };
        let flags = from.take();
        Some(Self {
            init: flags & 1 != 0,
            alone: flags & 2 != 0,
            incomplete: flags & 4 != 0,
            departed: std::array::from_fn(|_| from.take()),
            ..header
        })
    }
}

impl State {
    pub fn encode(&self) -> [u8; HALF_BYTES] {
        let (kind, value) = match self.exit {
            None => (0, 0),
            Some(Exit::Code(code)) => (1, code),
            Some(Exit::Signal(signal)) => (2, signal),
            Some(Exit::Unknown) => (3, 0),
        };
        Writer::new()
            .put(self.definition)
            .put(
                u64::from(self.goal_up)
                    | u64::from(self.failed) << 1
                    | u64::from(self.halted) << 2
                    | u64::from(self.removed) << 3
                    | u64::from(self.by_opm) << 4
                    | kind << 8,
            )
            .put(u64::from(value.cast_unsigned()))
            .put(self.generation)
            .put(self.emptied)
            .put(self.restarts)
            .put(u64::from(self.deaths))
            .put(self.started_at)
            .put(self.exited_at)
            .put(self.restarted_at)
            .seal()
    }

    /// None if the half was never written, or is torn.
    pub fn decode(slot: &[u8]) -> Option<Self> {
        let mut from = Reader::open(slot.get(..HALF_BYTES)?)?;
        let definition = from.take();
        let flags = from.take();
        let value = u32::try_from(from.take()).ok()?.cast_signed();
        Some(Self {
            definition,
            goal_up: flags & 1 != 0,
            failed: flags & 2 != 0,
            halted: flags & 4 != 0,
            removed: flags & 8 != 0,
            by_opm: flags & 16 != 0,
            generation: from.take(),
            emptied: from.take(),
            restarts: from.take(),
            deaths: u32::try_from(from.take()).ok()?,
            started_at: from.take(),
            exited_at: from.take(),
            restarted_at: from.take(),
            exit: match flags >> 8 {
                1 => Some(Exit::Code(value)),
                2 => Some(Exit::Signal(value)),
                3 => Some(Exit::Unknown),
                _ => None,
            },
        })
    }
}

impl Signature {
    pub fn encode(&self) -> [u8; SIGNATURE_BYTES] {
        Writer::new()
            .put(self.generation)
            .put_identity(&self.leader)
            .put_identity(&self.parent)
            .put(self.namespace.id)
            .put(self.namespace.inode)
            .seal()
    }

    /// None if nobody signed yet, or the signature is torn: then its child never exec'd.
    pub fn decode(slot: &[u8]) -> Option<Self> {
        Self::decode_half(slot.get(SIGNATURE_OFFSET..SIGNATURE_OFFSET + SIGNATURE_BYTES)?)
    }

    /// [`Signature::decode`] of its own bytes alone.
    pub fn decode_half(half: &[u8]) -> Option<Self> {
        let mut from = Reader::open(half)?;
        Some(Self {
            generation: from.take(),
            leader: from.take_identity(),
            parent: from.take_identity(),
            namespace: Namespace { id: from.take(), inode: from.take() },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMESPACE: Namespace = Namespace { id: 6, inode: 5 };

    fn identity(n: u64) -> Identity {
        Identity { pid: 4_000 + n as i32, start_time: 1_000 + n, inode: 77 + n }
    }

    #[test]
    fn both_halves_and_the_header_read_back() {
        let state = State {
            definition: 3,
            removed: true,
            goal_up: true,
            failed: true,
            halted: true,
            generation: 9,
            emptied: 8,
            restarts: 7,
            deaths: 2,
            started_at: 1,
            exited_at: 2,
            restarted_at: 3,
            exit: Some(Exit::Signal(9)),
            by_opm: true,
        };
        let signature = Signature {
            generation: 9,
            leader: identity(1),
            parent: identity(2),
            namespace: NAMESPACE,
        };
        let mut slot = [0; SLOT_BYTES];
        slot[..HALF_BYTES].copy_from_slice(&state.encode());
        slot[SIGNATURE_OFFSET..SIGNATURE_OFFSET + SIGNATURE_BYTES]
            .copy_from_slice(&signature.encode());
        assert_eq!(State::decode(&slot), Some(state));
        assert_eq!(Signature::decode(&slot), Some(signature));
        let header = Header {
            machine: 1,
            boot: u128::MAX - 5,
            pid_namespace: 2,
            home_key: 3,
            home: (4, 5),
            daemon: identity(3),
            init: true,
            alone: true,
            incomplete: true,
            departed: [7; DEPARTED_MAX],
        };
        assert_eq!(Header::decode(&header.encode()), Some(header));
    }

    #[test]
    fn every_torn_signature_is_no_signature() {
        let old = Signature {
            generation: 4,
            leader: identity(1),
            parent: identity(2),
            namespace: NAMESPACE,
        }
        .encode();
        let new = Signature {
            generation: 5,
            leader: identity(3),
            parent: identity(2),
            namespace: NAMESPACE,
        }
        .encode();
        for cut in 0..=SIGNATURE_BYTES {
            let mut slot = [0; SLOT_BYTES];
            slot[SIGNATURE_OFFSET..SIGNATURE_OFFSET + cut].copy_from_slice(&new[..cut]);
            slot[SIGNATURE_OFFSET + cut..SIGNATURE_OFFSET + SIGNATURE_BYTES]
                .copy_from_slice(&old[cut..]);
            let read = Signature::decode(&slot).map(|s| s.generation);
            assert!(read.is_none() || cut == 0 || new[cut..] == old[cut..], "cut {cut}");
        }
    }

    #[test]
    fn a_slot_that_was_never_written_is_neither_state_nor_signature() {
        assert_eq!(State::decode(&[0; SLOT_BYTES]), None);
        assert_eq!(Signature::decode(&[0; SLOT_BYTES]), None);
    }
}
