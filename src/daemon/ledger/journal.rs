//! The journal: one file of fixed slots, written in place, so that what lives is on record
//! whatever dies, and a full disk can't stop a stop.
//!
//! It has to outlive the daemon, not the machine: nothing here is synced. The daemon's half of a
//! slot is written once at the end of a turn, however often it changed; the children write theirs.
use crate::process::journal_format::{
    HEADER_BYTES, Header, SIGNATURE_OFFSET, SLOT_BYTES, Signature, State, slot_offset,
};
use crate::sys::{Kernel, Mode, Result, write_all_at};

/// The file's name in the home.
pub const FILE: &str = "journal";

/// A slot's halves. One is none if it was never written or is torn.
pub type Slot = (Option<State>, Option<Signature>);

/// What an earlier daemon and its children left behind.
#[derive(Debug)]
pub struct Found {
    /// None: no journal, or a damaged header.
    pub header: Option<Header>,
    /// By id.
    pub slots: Vec<Slot>,
}

/// The open journal.
#[derive(Debug)]
pub struct Journal<F> {
    file: F,
    /// Slots that the file has room for.
    slots: u32,
}

/// Reads what is there, changing nothing.
pub fn load<K: Kernel>(kernel: &mut K) -> Result<Found> {
    let bytes = kernel.load(FILE)?.unwrap_or_default();
    let header = Header::decode(&bytes);
    let body = bytes.get(HEADER_BYTES..).unwrap_or_default();
    let slots = body.chunks_exact(SLOT_BYTES).map(|s| (State::decode(s), Signature::in_slot(s)));
    Ok(Found { header, slots: slots.collect() })
}

impl<F: std::fmt::Debug> Journal<F> {
    /// Opens the journal. Its header stays whose it was until [`Journal::claim`].
    pub fn open<K: Kernel<File = F>>(kernel: &mut K, slots: u32) -> Result<Self> {
        let file = kernel.open(FILE, Mode::InPlace)?;
        Ok(Self { file, slots })
    }

    /// Writes the header: from now on the slots are this boot's. Only once they are, for a daemon
    /// that dies before must not make the next one believe what an earlier boot wrote.
    pub fn claim<K: Kernel<File = F>>(&self, kernel: &mut K, header: &Header) -> Result<()> {
        write_all_at(kernel, &self.file, 0, &header.encode())
    }

    /// The open file, for the children to sign in.
    pub fn file(&self) -> &F {
        &self.file
    }

    /// Makes room for slot `id`: writes it full of zeroes, so that writing it later takes no
    /// new disk block. Errors: ENOSPC, EDQUOT, EIO: then the file is as long as it was.
    pub fn reserve<K: Kernel<File = F>>(&mut self, kernel: &mut K, id: u32) -> Result<()> {
        while self.slots <= id {
            let offset = slot_offset(self.slots);
            if let Err(errno) = write_all_at(kernel, &self.file, offset, &[0; SLOT_BYTES]) {
                // What was written of it is no whole slot, and is written over next time.
                return kernel.set_len(&self.file, offset).and(Err(errno));
            }
            self.slots += 1;
        }
        Ok(())
    }

    /// Writes the child's half of a slot, for one that signed where it is lost.
    pub fn sign<K: Kernel<File = F>>(
        &self,
        kernel: &mut K,
        id: u32,
        signature: &Signature,
    ) -> Result<()> {
        let offset = slot_offset(id) + SIGNATURE_OFFSET as u64;
        write_all_at(kernel, &self.file, offset, &signature.encode())
    }

    /// Writes the daemon's half of a slot. Errors: EIO, and ENOSPC on file systems that write in
    /// place to a new place.
    pub fn write<K: Kernel<File = F>>(&self, kernel: &mut K, id: u32, state: &State) -> Result<()> {
        write_all_at(kernel, &self.file, slot_offset(id), &state.encode())
    }
}
