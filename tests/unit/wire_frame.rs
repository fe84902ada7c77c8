//! Of `opm::wire::frame`.
use opm::wire::frame::*;

#[test]
fn frames_arrive_whole_however_they_are_cut() {
    let mut stream = encode(&"one").unwrap();
    stream.extend(encode(&vec![1, 2, 3]).unwrap());
    for cut in 1..stream.len() {
        let mut inbox = Inbox::default();
        let mut frames = Vec::new();
        for piece in stream.chunks(cut) {
            inbox.push(piece);
            while let Some(frame) = inbox.next_frame(64).unwrap() {
                frames.push(String::from_utf8(frame).unwrap());
            }
        }
        assert_eq!(frames, ["\"one\"", "[1,2,3]"], "cut {cut}");
    }
}

#[test]
fn a_frame_of_a_gigabyte_is_refused_at_its_first_four_bytes() {
    let mut inbox = Inbox::default();
    inbox.push(&(1u32 << 30).to_le_bytes());
    assert_eq!(inbox.next_frame(REQUEST_BYTES_MAX), Err(1 << 30));
}
