//! Of `opm::sys::block`.
use opm::sys::block::*;
use opm::sys::{Errno, Strings};
use std::sync::atomic::{AtomicU32, Ordering};

fn strings(words: &[&str]) -> Strings {
    let mut strings = Strings::default();
    words.iter().for_each(|word| strings.push(&[word]));
    strings
}

#[test]
fn strings_read_back_after_reuse() {
    let mut blocks = Blocks::default();
    for round in 0..3 {
        let words = [format!("a{round}"), String::new(), "c".repeat(5000)];
        let given = strings(&words.each_ref().map(String::as_str));
        let block = blocks.take(Block::room_for(&[&given])).unwrap();
        let made = block.strings(&given).unwrap();
        for (at, word) in words.iter().enumerate() {
            // SAFETY: nothing has touched the block since.
            let text = unsafe { made.get(at) }.unwrap();
            assert_eq!(text.to_str(), Ok(word.as_str()));
        }
        // SAFETY: as above; the array ends in NULL.
        assert!(unsafe { made.get(3).is_none() && (*made.pointers.add(3)).is_null() });
        assert_eq!(blocks.count(), 1);
    }
}

#[test]
fn a_nul_inside_is_refused_and_so_is_too_much() {
    let mut blocks = Blocks::default();
    let block = blocks.take(16).unwrap();
    assert_eq!(block.strings(&strings(&["a\0b"])).err(), Some(Errno::INVAL));
    assert_eq!(
        block.strings(&strings(&["x".repeat(DATA_BYTES).as_str()])).err(),
        Some(Errno::TOOBIG)
    );
    assert_eq!(blocks.take(usize::MAX).err(), Some(Errno::TOOBIG));
    assert_eq!(blocks.take(1 << 21).err(), None);
}

#[test]
fn a_block_in_use_is_neither_taken_nor_given_back() {
    let mut blocks = Blocks::default();
    let used = blocks.take(1).unwrap();
    used.word().store(7, Ordering::Relaxed);
    let (stack, word) = (used.stack(), used.word().as_ptr());
    assert_ne!(blocks.take(1).unwrap().stack(), stack);
    blocks.give_back();
    assert_eq!(blocks.count(), 2);
    // SAFETY: the block is there still, and its word only ever used as an atomic.
    unsafe { AtomicU32::from_ptr(word) }.store(0, Ordering::Relaxed);
    blocks.take(1 << 21).unwrap();
    blocks.give_back();
    assert_eq!(blocks.count(), 1);
}
