//! Of `daemon::server::connection`: compiled with the library, for it uses what is private there.
use super::*;

#[test]
fn what_a_follower_has_taken_is_given_back_though_it_never_catches_up() {
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let mut client = Connection::new(ours, 0);
    let mut expected = Vec::new();
    for n in 0..10_000u32 {
        let frame = n.to_le_bytes().repeat(25);
        expected.extend_from_slice(&frame);
        client.queue(frame);
        // As if the reader had taken all but the last two.
        let left = client.out.len().min(200);
        client.out.drain(..client.out.len() - left);
        assert!(client.out.iter().eq(&expected[expected.len() - left..]));
        assert!(client.out.capacity() < 1_000, "{} after {n}", client.out.capacity());
    }
}
