//! What a daemon that was killed leaves of a batch of lines.
use opm::sys::fifo;
use opm::sys::receipt::{Note, Receipt, identity};
use std::io::Write;

#[test]
fn a_receipt_says_whether_a_batch_has_left_its_fifo() {
    let directory = std::env::temp_dir().join(format!("opm-receipt-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let path = |name: &str| directory.join(name).to_str().unwrap().to_owned();
    let receipt = Receipt::open(&path("receipt")).unwrap();
    assert_eq!(receipt.left(), None, "nothing was noted");
    let fifo = fifo::open(&path("fifo")).unwrap();
    let mut writer = std::fs::File::options().write(true).open(path("fifo")).unwrap();
    let mut note =
        Note { log: (1, 2), fifo: identity(&fifo).unwrap(), end: 3, bytes: u64::MAX, taken: 5 };
    let mut buffer = [0; 16];
    for (bytes, taken) in [("\0bcde", 5), ("x", 1), ("\n\n\n", 3)] {
        writer.write_all(bytes.as_bytes()).unwrap();
        note.taken = taken;
        receipt.note(&note, bytes.as_bytes()[0]).unwrap();
        // Whoever comes next sees it.
        assert_eq!(Receipt::open(&path("receipt")).unwrap().left(), Some(note));
        let taken = usize::try_from(taken).unwrap();
        assert_eq!(receipt.take(&fifo, taken, &mut buffer), Ok(taken));
        assert_eq!(Receipt::open(&path("receipt")).unwrap().left(), None);
    }
    // Cut off by somebody, it proves nothing, and nothing is taken by it or dies of it.
    std::fs::File::create(path("receipt")).unwrap();
    assert_eq!(receipt.left(), None);
    writer.write_all(b"abc").unwrap();
    assert!(receipt.take(&fifo, 3, &mut buffer).is_err());
    assert_eq!(fifo::consume(&fifo, 3, &mut buffer), Ok(()));
    std::fs::remove_dir_all(directory).unwrap();
}
