//! Which addresses a socket may have.
use opm::service::listen::Listen;

#[test]
fn what_is_written_is_read_back() {
    for text in [
        "3000",
        "127.0.0.1:3000",
        "[::]:443",
        "unix:/run/a=b.sock",
        "http=80",
        "a=unix:/x,backlog=5,mode=0600",
    ] {
        assert_eq!(Listen::parse(text).map(|listen| listen.to_string()), Ok(text.to_owned()));
    }
}

#[test]
fn what_is_no_address_is_refused() {
    for text in [
        "",
        "0",
        "65536",
        "x",
        "localhost:80",
        "127.0.0.1",
        "unix:x",
        "unix:/",
        "=3000",
        "a b=3000",
        "3000,mode=0600",
        "3000,x",
        "3000,backlog=0",
        "unix:/x,mode=8",
        "[::]:0",
    ] {
        assert!(Listen::parse(text).is_err(), "{text}");
    }
    assert!(Listen::parse(&format!("unix:/{}", "x".repeat(103))).is_err());
}
