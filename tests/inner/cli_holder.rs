//! Of `cli::holder`: compiled with the library, for it uses what is private there.
use super::*;

#[test]
fn the_holder_of_a_lock_is_found_by_the_inode() {
    let locks = "1: POSIX  ADVISORY  WRITE 9 08:01:55 0 EOF\n\
                 2: FLOCK  ADVISORY  WRITE 77 08:01:55 0 EOF\n\
                 2: -> FLOCK  ADVISORY  WRITE 78 08:01:56 0 EOF\n";
    assert_eq!(holder_in(locks, 55), Some(77));
    assert_eq!(holder_in(locks, 56), None, "78 only waits");
}
