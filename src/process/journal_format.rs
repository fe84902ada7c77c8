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
/// Bytes of each half of a slot, with what is free in it.
pub const HALF_BYTES: usize = 128;
/// Bytes of [`encode_number`].
pub const NUMBER_BYTES: usize = 16;
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
    /// It needs the operator. The number says why its launch failed, if that is why; else 0.
    pub failed: Option<u64>,
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
    /// The incarnation at hand does its work.
    pub ready: bool,
    /// What leads the incarnation at hand in its leader's place.
    pub main: Option<Identity>,
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

/// Words in little-endian order, zeroes, and the checksum in the last 8 bytes. Neither allocates
/// nor panics: the child uses it between clone and exec.
fn seal<const N: usize>(parts: &[&[u64]]) -> [u8; N] {
    let mut bytes = [0; N];
    if let Some((body, sum)) = bytes.split_last_chunk_mut() {
        let places = body.as_chunks_mut().0.iter_mut();
        for (place, word) in places.zip(parts.iter().copied().flatten()) {
            *place = word.to_le_bytes();
        }
        *sum = checksum(body).to_le_bytes();
    }
    bytes
}

/// The words of a sealed record.
struct Words<'a>(&'a [u8]);

impl<'a> Words<'a> {
    /// None if the checksum is wrong; all zero bytes (never written) are wrong too.
    fn open(bytes: &'a [u8]) -> Option<Self> {
        let (body, sum) = bytes.split_last_chunk::<8>()?;
        (checksum(body) == u64::from_le_bytes(*sum)).then_some(Self(body))
    }

    fn take(&mut self) -> u64 {
        let Some((word, rest)) = self.0.split_first_chunk::<8>() else { return 0 };
        self.0 = rest;
        u64::from_le_bytes(*word)
    }

    fn take_identity(&mut self) -> Identity {
        let pid = u32::try_from(self.take()).unwrap_or(0).cast_signed();
        Identity { pid, start_time: self.take(), inode: self.take() }
    }
}

fn words_of(who: &Identity) -> [u64; 3] {
    [u64::from(who.pid.cast_unsigned()), who.start_time, who.inode]
}

/// Flags in one word, the first in the lowest bit.
fn pack(flags: &[bool]) -> u64 {
    flags.iter().rev().fold(0, |word, flag| word << 1 | u64::from(*flag))
}

impl Header {
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let place = [self.pid_namespace, self.home_key, self.home.0, self.home.1];
        seal(&[
            &[MAGIC, self.machine, (self.boot >> 64) as u64, self.boot as u64],
            &place,
            &words_of(&self.daemon),
            &[pack(&[self.init, self.alone, self.incomplete])],
            &self.departed,
        ])
    }

    /// None if it is damaged or of another format.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut from = Words::open(bytes.get(..HEADER_BYTES)?)?;
        if from.take() != MAGIC {
            return None;
        }
        let (machine, high, low) = (from.take(), from.take(), from.take());
        let (pid_namespace, home_key) = (from.take(), from.take());
        let home = (from.take(), from.take());
        let daemon = from.take_identity();
        let flags = from.take();
        Some(Self {
            machine,
            boot: u128::from(high) << 64 | u128::from(low),
            pid_namespace,
            home_key,
            home,
            daemon,
            init: flags & 1 != 0,
            alone: flags & 2 != 0,
            incomplete: flags & 4 != 0,
            departed: std::array::from_fn(|_| from.take()),
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
        let Self { goal_up, failed, halted, removed, by_opm, ready, .. } = *self;
        let flags = pack(&[goal_up, failed.is_some(), halted, removed, by_opm, ready]);
        seal(&[
            &[self.definition, flags | kind << 8, u64::from(value.cast_unsigned())],
            &[self.generation, self.emptied, self.restarts, u64::from(self.deaths)],
            &[self.started_at, self.exited_at, self.restarted_at],
            &words_of(&self.main.unwrap_or_default()),
            &[failed.unwrap_or(0)],
        ])
    }

    /// None if the half was never written, or is torn.
    pub fn decode(slot: &[u8]) -> Option<Self> {
        let mut from = Words::open(slot.get(..HALF_BYTES)?)?;
        let (definition, flags) = (from.take(), from.take());
        let value = u32::try_from(from.take()).ok()?.cast_signed();
        Some(Self {
            definition,
            goal_up: flags & 1 != 0,
            halted: flags & 4 != 0,
            removed: flags & 8 != 0,
            by_opm: flags & 16 != 0,
            ready: flags & 32 != 0,
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
            main: Some(from.take_identity()).filter(|main| main.pid != 0),
            // Last, as it is there.
            failed: Some(from.take()).filter(|_| flags & 2 != 0),
        })
    }
}

impl Signature {
    pub fn encode(&self) -> [u8; SIGNATURE_BYTES] {
        let namespace = [self.namespace.id, self.namespace.inode];
        seal(&[&[self.generation], &words_of(&self.leader), &words_of(&self.parent), &namespace])
    }

    /// From a signature's own bytes. None if nobody signed yet, or the signature is torn: then its
    /// child never exec'd.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut from = Words::open(bytes)?;
        Some(Self {
            generation: from.take(),
            leader: from.take_identity(),
            parent: from.take_identity(),
            namespace: Namespace { id: from.take(), inode: from.take() },
        })
    }

    /// From the slot that it is in.
    pub fn in_slot(slot: &[u8]) -> Option<Self> {
        Self::decode(slot.get(SIGNATURE_OFFSET..SIGNATURE_OFFSET + SIGNATURE_BYTES)?)
    }
}

/// A number and its checksum, for a file of its own.
pub fn encode_number(number: u64) -> [u8; NUMBER_BYTES] {
    seal(&[&[number]])
}

/// None if it is damaged.
pub fn decode_number(bytes: &[u8]) -> Option<u64> {
    Words::open(bytes.get(..NUMBER_BYTES)?).map(|mut words| words.take())
}
