//! Of `opm::service::json`.
use opm::service::json::*;

#[test]
fn comments_and_last_commas_are_passed_over_and_all_else_is_read_as_it_is() {
    let text = r#" {"a": [1, -2, 1.5, true, null, {"a": "é // \" /* ,]"}], "b": {}} "#;
    assert_eq!(parse(text), Ok(serde_json::from_str(text).unwrap()));
    let with = "// é\n{\"a\": [1, 2, /* [ ü\n */ ], // , ]\n \"b\": {\"c\": \"//\",}, } // x";
    assert_eq!(parse(with), parse(r#"{"a": [1, 2], "b": {"c": "//"}}"#));
    let with = r#"{a_1: 'it\'s \"x\" \.log', $b /* x */ : [true], 'c d' : null, 0: 'é\u00e9'}"#;
    let same = r#"{"a_1": "it's \"x\" .log", "$b": [true], "c d": null, "0": "éé"}"#;
    assert_eq!(parse(with), parse(same));
}

#[test]
fn a_key_that_is_there_twice_is_named_however_deep() {
    for text in [r#"{"k": 1, "k": 1}"#, r#"[{"a": {"k": 1, "b": 2, "k": {}}}]"#] {
        let error = parse(text).unwrap_err();
        assert!(error.starts_with("the key 'k' is there twice at line 1"), "{error}");
    }
    assert!(parse(r#"{"k": 1, "k": 1"#).unwrap_err().contains("twice"));
}

#[test]
fn what_is_no_json_is_called_so() {
    for text in
        ["", "{", "[,]", "[1,,]", "{,}", "{\"a\":,}", "{} {}", "nul", "1e999", "[1 /* ]", "\"\\"]
    {
        assert!(parse(text).unwrap_err().starts_with("not JSON: "), "{text}");
    }
    let error = parse("{ // a comment\n  \"k\": }").unwrap_err();
    assert!(error.ends_with("at line 2 column 8"), "{error}");
}
