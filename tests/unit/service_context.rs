//! Of `opm::service::context`.
use opm::service::context::*;

fn context() -> Context {
    let mut limits = Limits::default();
    limits[7] = Some(4096);
    limits[4] = Some(UNLIMITED);
    let attributes = Attributes { umask: 0o277, nice: -3, limits };
    Context { env: vec![("A".into(), "b".into())], attributes }
}

#[test]
fn a_context_is_read_as_it_was_written() {
    let text = serde_json::to_string(&context()).unwrap();
    assert!(text.contains(r#""umask":"0277","nice":-3,"limits":{"core":"unlimited","#), "{text}");
    assert_eq!(serde_json::from_str::<Context>(&text).unwrap(), context());
}

#[test]
fn what_is_not_known_or_impossible_is_refused() {
    let text = serde_json::to_string(&context()).unwrap();
    for (from, to) in [
        ("\"nice\"", "\"niece\""),
        ("\"core\"", "\"locks\""),
        ("0277", "1777"),
        ("-3", "-21"),
        ("4096", "-1"),
        ("\"env\"", "\"vars\""),
    ] {
        let changed = text.replace(from, to);
        assert_ne!(changed, text);
        assert!(serde_json::from_str::<Context>(&changed).is_err(), "{changed}");
    }
}
