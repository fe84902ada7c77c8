//! The socket as opm-protocol(7) has it: its own example, taken from the page, asks.
use crate::namespace::isolated;
use crate::rig::Rig;
use serde_json::Value;
use std::process::Command;

/// The function of the page's example, as it stands there.
fn example() -> String {
    let page = include_str!("../../man/opm-protocol.7");
    let code = page.split_once(".Bd -literal -offset indent\n").unwrap().1;
    code.split_once("\nfor kind").unwrap().0.to_owned()
}

/// The replies to one request, in order: names and contents.
fn ask(rig: &Rig, request: &str) -> Vec<(String, Value)> {
    let script = format!(
        "{}\nfor found in ask({:?}, json.loads({request:?})): print(json.dumps(found))",
        example(),
        rig.home,
    );
    let output = Command::new("python3").args(["-c", &script]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_client_written_from_the_page_alone_rules_a_service() {
    isolated(here!(), |rig| {
        let leader = rig.start("web", "sleep");
        let only = |request: &str| ask(rig, request).pop().unwrap();
        let (kind, health) = only(r#""health""#);
        assert_eq!((kind.as_str(), &health["services"]), ("health", &1.into()));
        let (_, info) = only(r#"{"info": {"target": "web"}}"#);
        assert_eq!((&info[0]["status"], &info[0]["pid"]), (&"online".into(), &leader.into()));
        let (kind, stopped) = only(r#"{"stop": {"target": "web"}}"#);
        assert_eq!(kind, "outcomes");
        assert_eq!(stopped["outcomes"][0]["code"], 0);
        assert!(!crate::proc::alive(leader));
        let (_, events) = only(r#"{"events": {"follow": false}}"#);
        assert!(events.as_array().unwrap().iter().any(|event| event["event"] == "drained"));
        let (kind, failed) = only(r#"{"stop": {"target": "nope"}}"#);
        assert!(kind == "failed" || failed["outcomes"][0]["code"] == 3, "{kind} {failed}");
        let (kind, failed) = only(r#"{"stop": {"target": "web", "what": 1}}"#);
        assert_eq!((kind.as_str(), &failed["code"]), ("failed", &2.into()));
    });
}
