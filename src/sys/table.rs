//! Our table of descriptors, which children share rather than copy.
//!
//! A copy has to be closed again, one by one: 0.14 ms of a launch beside 1,000 services. A child
//! that shares the table takes a copy of its low part alone: of a range that reaches to the end of
//! the table close_range(2) with CLOSE_RANGE_UNSHARE copies nothing. So what a child needs lies
//! there, and numbers are reserved for its end of the launch pipe.
use super::raw;
use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::{OwnedFd, RawFd};
use rustix::io::{DupFlags, dup3, fcntl_dupfd_cloexec};

/// As many as are launched in a turn. Children beyond get a copy.
const RESERVED: usize = 32;
/// Room that is made before the first child shares the table: later the kernel waits for a grace
/// period before it takes a larger one into use (expand_fdtable()).
const ROOM: RawFd = 2047;

/// What of our table is kept for children.
#[derive(Debug, Default)]
pub struct Table {
    /// Low numbers that nobody uses now.
    reserved: Vec<OwnedFd>,
    /// What stands there meanwhile.
    nothing: Option<OwnedFd>,
}

impl Table {
    /// Reserves numbers: to be called while low ones are free. Without any, tables are copied: so
    /// it is where the limit leaves few.
    pub fn new() -> Self {
        let nothing = eventfd(0, EventfdFlags::CLOEXEC).ok();
        let copy = |least| fcntl_dupfd_cloexec(nothing.as_ref()?, least).ok();
        let count = if copy(ROOM).is_some() { RESERVED } else { 0 };
        let reserved = (0..count).map_while(|_| copy(3)).collect();
        Self { reserved, nothing }
    }

    /// Whether a child can leave the table. Asked of numbers that nobody has.
    pub fn can_be_left() -> bool {
        let flags = libc::CLOSE_RANGE_UNSHARE | libc::CLOSE_RANGE_CLOEXEC;
        raw::close_range(u32::MAX - 1, u32::MAX, flags).is_ok()
    }

    /// How many numbers are reserved and not in use.
    pub fn count(&self) -> usize {
        self.reserved.len()
    }

    /// Gives a descriptor a reserved number, so that a child can share the table; says whether.
    pub fn lower(&mut self, fd: &mut OwnedFd) -> bool {
        let Some(mut low) = self.reserved.pop() else { return false };
        if dup3(&*fd, &mut low, DupFlags::CLOEXEC).is_err() {
            self.reserved.push(low);
            return false;
        }
        *fd = low;
        true
    }

    /// Closes what had a reserved number, which stays reserved.
    pub fn take_back(&mut self, mut low: OwnedFd) {
        let nothing = self.nothing.as_ref();
        if nothing.is_some_and(|nothing| dup3(nothing, &mut low, DupFlags::CLOEXEC).is_ok()) {
            self.reserved.push(low);
        }
    }
}
