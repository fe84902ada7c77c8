//! The memory of a launch: the child's stack, and all that the child reads.
//!
//! The child shares the daemon's memory until its exec, and runs beside the daemon. So what it
//! uses lies in a mapping that the daemon doesn't touch before the kernel has said that the child
//! uses it no more: at the child's exec or end, whichever way it came to it, the kernel writes 0
//! into a word of the block (CLONE_CHILD_CLEARTID of clone(2)). There are as many blocks as
//! launches in flight; when there is none in flight, one block is kept.
//!
//! ```text
//! guard | stack, downwards | word, arguments, environment, plan
//! ```
use super::{Errno, Result};
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};
use std::ffi::{CStr, c_char};
use std::sync::atomic::{AtomicU32, Ordering};

/// Some forty times what a child needs.
const STACK_BYTES: usize = 64 << 10;
/// Enough for most environments.
pub const DATA_BYTES: usize = 64 << 10;
/// More than the kernel takes for argv and environment together.
const DATA_BYTES_MAX: usize = 16 << 20;
/// The word that the kernel clears, and what keeps the rest aligned.
const WORD_BYTES: usize = 16;

/// The memory of one launch.
#[derive(Debug)]
pub struct Block {
    base: *mut u8,
    /// Where the stack ends and the data begin.
    stack_end: usize,
    size: usize,
    used: usize,
}

/// The blocks of the launches in flight, and one for the next.
#[derive(Debug, Default)]
pub struct Blocks(Vec<Block>);

/// Strings in one block, each ended by NUL: one allocation for a whole environment.
#[derive(Clone, Debug, Default)]
pub struct Strings {
    pub(super) bytes: Vec<u8>,
    starts: Vec<usize>,
}

impl Strings {
    /// Adds `pieces`, joined. NUL bytes end a string early: callers have refused them.
    pub fn push(&mut self, pieces: &[&str]) {
        self.starts.push(self.bytes.len());
        for piece in pieces {
            self.bytes.extend_from_slice(piece.as_bytes());
        }
        self.bytes.push(0);
    }

    /// Each string without its NUL.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let ends = self.starts.iter().skip(1).copied().chain([self.bytes.len()]);
        self.starts.iter().zip(ends).map(|(start, end)| &self.bytes[*start..end - 1])
    }
}

/// Strings in a block, each ended by NUL, as a NULL-terminated array of pointers.
#[derive(Clone, Copy, Debug)]
pub struct CStrings {
    /// For execve(2): ends in NULL.
    pub pointers: *mut *const c_char,
    /// Where the bytes of all of them end, behind the last NUL.
    pub end: *mut u8,
    count: usize,
}

impl Blocks {
    /// A block that no child uses, empty, with room for `bytes`. Errors: E2BIG: no program could be
    /// given so much. ENOMEM.
    pub fn take(&mut self, bytes: usize) -> Result<&mut Block> {
        let fits = |block: &Block| block.is_free() && block.room() >= bytes;
        let at = match self.0.iter().position(fits) {
            Some(at) => at,
            None => {
                self.0.push(Block::map(bytes)?);
                self.0.len() - 1
            }
        };
        let block = self.0.get_mut(at).ok_or(Errno::NOMEM)?;
        block.used = block.stack_end + WORD_BYTES;
        Ok(block)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Gives back what a crowd of launches took, when the last of them is over.
    pub fn give_back(&mut self) {
        if self.0.iter().all(Block::is_free) {
            self.0.retain(|block| block.room() <= DATA_BYTES);
            self.0.truncate(1);
        }
    }
}

impl Block {
    /// Errors: E2BIG, ENOMEM.
    pub fn map(bytes: usize) -> Result<Self> {
        if bytes > DATA_BYTES_MAX {
            return Err(Errno::TOOBIG);
        }
        let page = rustix::param::page_size();
        let stack_end = page + STACK_BYTES.next_multiple_of(page);
        let data = (WORD_BYTES + bytes).max(DATA_BYTES).next_multiple_of(page);
        let (size, access) = (stack_end + data, ProtFlags::READ | ProtFlags::WRITE);
        let (anywhere, flags) = (std::ptr::null_mut(), MapFlags::PRIVATE | MapFlags::NORESERVE);
        // SAFETY: a new mapping at an address of the kernel's choice.
        let base = unsafe { mmap_anonymous(anywhere, size, access, flags) }?;
        let block = Self { base: base.cast(), stack_end, size, used: stack_end + WORD_BYTES };
        // SAFETY: the first page of our own mapping, which nothing refers to. A stack that grows
        // into it ends its process, instead of changing what lies below.
        unsafe { mprotect(base, page, MprotectFlags::empty()) }?;
        Ok(block)
    }

    fn room(&self) -> usize {
        self.size - self.stack_end - WORD_BYTES
    }

    /// Where the kernel writes 0 when the child has exec'd or ended.
    pub fn word(&self) -> &AtomicU32 {
        let word = self.base.wrapping_add(self.stack_end).cast();
        // SAFETY: within the mapping, aligned for it, and only ever used as an atomic.
        unsafe { AtomicU32::from_ptr(word) }
    }

    /// Whether no child uses it.
    pub fn is_free(&self) -> bool {
        self.word().load(Ordering::Acquire) == 0
    }

    /// The lowest address of the stack, and how many bytes it has.
    pub fn stack(&self) -> (u64, u64) {
        let guard = self.stack_end - STACK_BYTES.next_multiple_of(rustix::param::page_size());
        let lowest = self.base.wrapping_add(guard);
        (lowest.expose_provenance() as u64, (self.stack_end - guard) as u64)
    }

    /// Room for `bytes`, aligned for anything.
    fn reserve(&mut self, bytes: usize) -> Result<*mut u8> {
        let start = self.used.next_multiple_of(WORD_BYTES);
        let end = start.checked_add(bytes).filter(|end| *end <= self.size);
        self.used = end.ok_or(Errno::TOOBIG)?;
        Ok(self.base.wrapping_add(start))
    }

    /// Moves a value in. Errors: E2BIG: over what it was taken for.
    pub fn put<T: Copy>(&mut self, value: T) -> Result<*mut T> {
        const { assert!(align_of::<T>() <= WORD_BYTES) };
        let place = self.reserve(size_of::<T>())?.cast::<T>();
        // SAFETY: room for a T was made just now, aligned for it.
        unsafe { place.write(value) };
        Ok(place)
    }

    /// Bytes that [`Block::strings`] and [`Block::put`] take for these, at most.
    pub fn room_for(strings: &[&Strings]) -> usize {
        let pointers = |strings: &Strings| (strings.starts.len() + 1) * size_of::<*const c_char>();
        let one = |strings: &&Strings| {
            strings.bytes.len().saturating_add(pointers(strings)) + 2 * WORD_BYTES
        };
        strings.iter().map(one).fold(4096, usize::saturating_add)
    }

    /// Copies strings in, with an array that points to them. Errors: EINVAL: a NUL byte inside of
    /// one. E2BIG: over what it was taken for.
    pub fn strings(&mut self, strings: &Strings) -> Result<CStrings> {
        let Strings { bytes, starts } = strings;
        if bytes.iter().filter(|byte| **byte == 0).count() != starts.len() {
            return Err(Errno::INVAL);
        }
        let to = self.reserve(bytes.len())?;
        // SAFETY: room for so many bytes was made just now, in a mapping apart from the heap.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
        let room = self.reserve((starts.len() + 1) * size_of::<*const c_char>())?;
        let pointers = room.cast::<*const c_char>();
        let addresses = starts.iter().map(|start| to.wrapping_add(*start).cast_const().cast());
        for (at, address) in addresses.chain([std::ptr::null()]).enumerate() {
            // SAFETY: the array has a place for each start and one more, aligned for pointers.
            unsafe { pointers.add(at).write(address) };
        }
        Ok(CStrings { pointers, end: to.wrapping_add(bytes.len()), count: starts.len() })
    }
}

impl Drop for Block {
    /// One that a child still uses stays mapped.
    fn drop(&mut self) {
        if self.is_free() {
            // SAFETY: a mapping of `map` with this size, to which no pointer is used any more.
            let _unmapped = unsafe { munmap(self.base.cast(), self.size) };
        }
    }
}

impl CStrings {
    /// # Safety
    /// The block is still what it was when the strings were copied in.
    pub unsafe fn get(&self, at: usize) -> Option<&CStr> {
        if at >= self.count {
            return None;
        }
        // SAFETY: the array has `count` strings.
        let pointer = unsafe { *self.pointers.wrapping_add(at) };
        // SAFETY: a string of the block, ended by NUL.
        Some(unsafe { CStr::from_ptr(pointer) })
    }
}
