//! Of `daemon::logs::room`: compiled with the library, for it uses what is private there.
use super::*;

#[test]
fn a_config_says_what_is_wrong_with_it() {
    assert_eq!(of_config("{}"), Ok(None));
    assert_eq!(of_config(r#"{"log_max_total": "5M"}"#), Ok(Some(Bytes::mebi(5))));
    assert!(of_config(r#"{"log_max_total": 5}"#).unwrap_err().contains("500M"));
    assert!(of_config(r#"{"log_max_total": "x"}"#).unwrap_err().contains("bad size"));
    assert!(of_config("{").is_err());
}
