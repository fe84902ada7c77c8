//! Which addresses a socket may have.
use opm::service::listen::Listen;
use opm::service::options::{find, text_of};
use opm::service::spec::Spec;

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

#[test]
fn a_list_is_read_from_several_words_and_from_json() {
    let mut spec = Spec::new("web".to_owned(), vec!["x".to_owned()], "/".to_owned());
    let listen = find("listen").unwrap();
    let both = serde_json::json!(["3000", "unix:/x,mode=0600"]);
    listen.parse(&mut spec, "3000\nunix:/x,mode=0600").unwrap();
    assert_eq!(listen.get(&spec), both);
    listen.parse(&mut spec, "").unwrap();
    assert_eq!(listen.get(&spec), listen.default());
    listen.read(&mut spec, &both).unwrap();
    assert_eq!(spec.held.listen.len(), 2);
    assert_eq!(text_of(&both), "3000,unix:/x,mode=0600");
    listen.read(&mut spec, &3000.into()).unwrap();
    assert_eq!(listen.get(&spec), serde_json::json!(["3000"]));
}
