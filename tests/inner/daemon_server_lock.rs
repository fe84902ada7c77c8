//! Of `daemon::server::lock`: compiled with the library, for it uses what is private there.
use super::*;

#[test]
fn a_key_counts_only_where_it_was_written() {
    let text = b"00000000000000ff 0000000000000001 0000000000000002\n";
    assert_eq!(key_of(text, (1, 2)), Some(255));
    assert_eq!(key_of(text, (1, 3)), None);
    assert_eq!(key_of(text, (3, 2)), None);
    for torn in [&text[..16], &text[..40], &text[20..], b""] {
        assert_eq!(key_of(torn, (1, 2)), None);
    }
}
