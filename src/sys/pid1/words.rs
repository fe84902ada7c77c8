//! The words of the command line, where the kernel has put them: nothing is copied.

use std::borrow::Cow;
use std::ffi::{CStr, c_char};

/// What is left of the command line: options at first, the program and its arguments at last.
#[derive(Debug, Clone)]
pub struct Words(*const *const c_char);

impl Words {
    /// # Safety
    ///
    /// Pointers to C strings, and a null pointer behind them, for as long as the process lives.
    pub(super) unsafe fn new(argv: *const *const c_char) -> Words {
        Words(argv)
    }

    /// The first of them.
    pub fn first(&self) -> Option<&'static CStr> {
        // SAFETY: never beyond the null pointer, which ends them.
        let word = unsafe { *self.0 };
        // SAFETY: a C string that lives as long as the process.
        (!word.is_null()).then(|| unsafe { CStr::from_ptr(word) })
    }

    /// The first of them, to be shown.
    pub fn name(&self) -> Cow<'static, str> {
        self.first().map(CStr::to_string_lossy).unwrap_or_default()
    }

    /// As exec wants them.
    pub(super) fn argv(&self) -> *const *const c_char {
        self.0
    }

    /// Those of a test.
    #[cfg(test)]
    pub(crate) fn of(line: &str) -> Words {
        let words = line.split_whitespace();
        let words = words.map(|word| std::ffi::CString::new(word).unwrap().into_raw().cast_const());
        let argv: Vec<_> = words.chain([std::ptr::null()]).collect();
        Words(Box::leak(argv.into_boxed_slice()).as_ptr())
    }
}

impl Iterator for Words {
    type Item = &'static CStr;

    fn next(&mut self) -> Option<&'static CStr> {
        let word = self.first()?;
        // SAFETY: at most to the null pointer, for this wasn't it.
        self.0 = unsafe { self.0.add(1) };
        Some(word)
    }
}
