//! The journal: one file of fixed slots, written in place, so that what lives is on record
//! whatever dies, and a full disk can't stop a stop.
//!
//! It has to outlive the daemon, not the machine: nothing here is synced. The daemon's half of a
//! slot is written once at the end of a turn, however often it changed; the children write theirs.
use crate::process::journal_format::{HEADER_BYTES, Header, SLOT_BYTES, Signature, State};
use crate::sys::{Kernel, Result};

/// The file's name in the home.
pub const FILE: &str = "journal";

/// A slot's halves. One is none if it was never written or is torn.
pub type Slot = (Option<State>, Option<Signature>);

/// The generation that signed in a slot; 0: none.
pub fn signed((_, signature): &Slot) -> u64 {
    signature.map_or(0, |signature| signature.generation)
}

/// The highest generation of a slot that is confirmed gone; 0: none.
pub fn emptied((state, _): &Slot) -> u64 {
    state.map_or(0, |state| state.emptied)
}

/// What an earlier daemon and its children left behind.
#[derive(Debug)]
pub struct Found {
    /// None: no journal, or a damaged header.
    pub header: Option<Header>,
    /// By id.
    pub slots: Vec<Slot>,
}

/// Reads what is there, changing nothing.
pub fn load<K: Kernel>(kernel: &mut K) -> Result<Found> {
    let bytes = kernel.load(FILE)?.unwrap_or_default();
    let header = Header::decode(&bytes);
    let body = bytes.get(HEADER_BYTES..).unwrap_or_default();
    let slots = body.chunks_exact(SLOT_BYTES).map(|s| (State::decode(s), Signature::in_slot(s)));
    Ok(Found { header, slots: slots.collect() })
}
