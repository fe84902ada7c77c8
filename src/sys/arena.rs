//! Memory that a forked child may use, apart from the heap, which it doesn't get.
//!
//! Fork copies the page tables of all that the parent has written, and each page that the parent
//! writes afterwards is copied once more while children are about: with the state of a thousand
//! services in the heap that was a quarter of a spawn. So the heap is left out of the fork
//! (MADV_DONTFORK), and what the child needs lies here.
use super::{Errno, Result};
use std::ffi::c_char;
use std::ptr::NonNull;

const PAGE_BYTES: usize = 4096;
const ARENA_BYTES_MIN: usize = 256 << 10;
/// More than the kernel takes for argv and environment together.
const ARENA_BYTES_MAX: usize = 16 << 20;

/// A private mapping that is filled for one spawn, and used again for the next.
#[derive(Debug)]
pub struct Arena {
    base: NonNull<u8>,
    size: usize,
    used: usize,
    /// Up to where the heap is kept from children.
    heap_end: usize,
}

/// Strings in the arena, each ended by NUL, as a NULL-terminated array of pointers.
#[derive(Clone, Copy, Debug)]
pub struct CStrings {
    pub pointers: *const *const c_char,
    pub count: usize,
}

impl Arena {
    /// # Errors
    /// ENOMEM.
    pub fn new() -> Result<Self> {
        // What the heap holds already stays in children: in a static program the thread's own
        // variables (errno among them) lie at its beginning.
        let heap_end = program_break().next_multiple_of(PAGE_BYTES);
        Ok(Self { base: map(ARENA_BYTES_MIN)?, size: ARENA_BYTES_MIN, used: 0, heap_end })
    }

    /// Empties the arena and makes room for `bytes`.
    ///
    /// # Errors
    /// E2BIG: no program could be given so much. ENOMEM.
    pub fn begin(&mut self, bytes: usize) -> Result<()> {
        self.used = 0;
        if bytes > ARENA_BYTES_MAX {
            return Err(Errno::TOOBIG);
        }
        if bytes > self.size {
            let size = bytes.next_power_of_two();
            let base = map(size)?;
            unmap(self.base, self.size);
            (self.base, self.size) = (base, size);
        }
        Ok(())
    }

    /// Leaves what the heap has grown by out of the next fork.
    pub fn keep_heap(&mut self) {
        let end = program_break() / PAGE_BYTES * PAGE_BYTES;
        if end < self.heap_end {
            // It has shrunk, and what grows there again is new to the kernel.
            self.heap_end = end;
        }
        if end > self.heap_end {
            let start = std::ptr::without_provenance_mut(self.heap_end);
            // SAFETY: the range is our own heap; the flag changes what a later fork copies, and
            // a child touches nothing but its stack, static data and this arena. Failing leaves
            // the heap in the fork, as without this call.
            unsafe { libc::madvise(start, end - self.heap_end, libc::MADV_DONTFORK) };
            self.heap_end = end;
        }
    }

    /// Bytes with a NUL after them.
    ///
    /// # Errors
    /// EINVAL: a NUL byte inside. E2BIG: over what `begin` was told.
    pub fn string(&mut self, pieces: &[&[u8]]) -> Result<*const c_char> {
        let start = self.used;
        for piece in pieces {
            if piece.contains(&0) {
                return Err(Errno::INVAL);
            }
            self.put(piece)?;
        }
        self.put(&[0])?;
        Ok(self.base.as_ptr().wrapping_add(start).cast())
    }

    /// Each string, and the array that points to them.
    ///
    /// # Errors
    /// As [`Arena::string`].
    pub fn strings<'a>(
        &mut self,
        count: usize,
        strings: impl Iterator<Item = &'a [u8]>,
    ) -> Result<CStrings> {
        const POINTER: usize = size_of::<*const c_char>();
        let array = self.used.next_multiple_of(POINTER);
        self.used = array;
        // A fresh mapping is zero, but this one may have been used before.
        for _ in 0..=count {
            self.put(&[0; POINTER])?;
        }
        let pointers: *mut *const c_char =
            self.base.as_ptr().wrapping_add(array).cast::<*const c_char>();
        for (at, string) in strings.take(count).enumerate() {
            let string = self.string(&[string])?;
            // SAFETY: `at` is below `count`, for which room was made above, aligned for pointers;
            // nothing else refers to the arena while `self` is borrowed mutably.
            unsafe { pointers.add(at).write(string) };
        }
        Ok(CStrings { pointers, count })
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        let end = self.used + bytes.len();
        if end > self.size {
            return Err(Errno::TOOBIG);
        }
        let to = self.base.as_ptr().wrapping_add(self.used);
        // SAFETY: the mapping has `size` bytes from `base`, and `end` is within; `bytes` lies
        // elsewhere, for nothing outside borrows from the arena.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
        self.used = end;
        Ok(())
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        unmap(self.base, self.size);
    }
}

fn map(size: usize) -> Result<NonNull<u8>> {
    let access = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new anonymous mapping at an address of the kernel's choice.
    let base = unsafe { libc::mmap(std::ptr::null_mut(), size, access, flags, -1, 0) };
    if base == libc::MAP_FAILED {
        return Err(Errno::NOMEM);
    }
    NonNull::new(base.cast()).ok_or(Errno::NOMEM)
}

fn unmap(base: NonNull<u8>, size: usize) {
    // SAFETY: a mapping of `map` with this size, to which no pointer is used any more.
    unsafe { libc::munmap(base.as_ptr().cast(), size) };
}

fn program_break() -> usize {
    // SAFETY: an increment of 0 only asks.
    unsafe { libc::sbrk(0) }.addr()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CStr;

    #[test]
    fn strings_and_their_array_read_back_after_reuse() {
        let mut arena = Arena::new().unwrap();
        for round in 0..3 {
            arena.begin(4096).unwrap();
            let words = [format!("a{round}"), String::new(), "c".to_owned()];
            let made = arena.strings(3, words.iter().map(String::as_bytes)).unwrap();
            for (at, word) in words.iter().enumerate() {
                // SAFETY: the array has three strings, ended by NUL.
                let pointer = unsafe { *made.pointers.add(at) };
                // SAFETY: as above.
                let text = unsafe { CStr::from_ptr(pointer) };
                assert_eq!(text.to_str(), Ok(word.as_str()));
            }
            // SAFETY: the array ends in NULL.
            assert!(unsafe { *made.pointers.add(3) }.is_null());
        }
    }

    #[test]
    fn a_nul_inside_is_refused_and_so_is_too_much() {
        let mut arena = Arena::new().unwrap();
        arena.begin(16).unwrap();
        assert_eq!(arena.string(&[b"a\0b"]), Err(Errno::INVAL));
        assert_eq!(arena.begin(usize::MAX), Err(Errno::TOOBIG));
        assert_eq!(arena.begin(1 << 20), Ok(()));
    }
}
