//! Giving back what only the start needed.
//!
//! The kernel maps 64 kB around each page of program text that is touched, and a start touches
//! many places. What is dropped here comes back from the page cache when it is needed, which for
//! the loop is a few pages. It must never touch a segment that can be written: that would lose
//! what was written.

use std::ffi::{c_int, c_void};

const PAGE: usize = 4096;

/// Lets go of the text and constants of the program and of its libraries. Since the page size is
/// assumed, a machine with larger pages keeps them: the kernel refuses unaligned addresses.
pub fn forget_start() {
    // SAFETY: the callback takes no data, keeps no pointer, and doesn't unwind.
    unsafe { libc::dl_iterate_phdr(Some(forget_object), std::ptr::null_mut()) };
}

unsafe extern "C" fn forget_object(
    object: *mut libc::dl_phdr_info,
    _size: usize,
    _data: *mut c_void,
) -> c_int {
    // SAFETY: the C library hands over a valid object for the time of the call.
    let object = unsafe { &*object };
    if object.dlpi_phdr.is_null() {
        return 0;
    }
    // SAFETY: dlpi_phnum headers stand at dlpi_phdr.
    let headers =
        unsafe { std::slice::from_raw_parts(object.dlpi_phdr, usize::from(object.dlpi_phnum)) };
    for header in headers {
        let is_constant = header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_W == 0;
        let (Ok(place), Ok(bytes)) =
            (usize::try_from(header.p_vaddr), usize::try_from(header.p_memsz))
        else {
            continue;
        };
        if !is_constant {
            continue;
        }
        let base = usize::try_from(object.dlpi_addr).unwrap_or(0);
        let start = (base.wrapping_add(place)) & !(PAGE - 1);
        let end = base.wrapping_add(place).wrapping_add(bytes);
        let whole = start as *mut c_void;
        let length = end.wrapping_sub(start);
        // SAFETY: a private mapping of a file that was never writable; the next touch maps the
        // same bytes again.
        unsafe { libc::madvise(whole, length, libc::MADV_DONTNEED) };
    }
    0
}
