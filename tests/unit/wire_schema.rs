//! The schema of process files, which is made from the table of options: it and the parser agree,
//! to a validator of others.
use opm::process::command::default_name;
use opm::service::options::{Group, OPTIONS, Opt};
use opm::wire::file::{Source, parse};
use serde_json::{Map, Value, json};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/man/opm-file.schema.json");

/// Of each key: values that are good, that are bad to both, and that only opm can tell are bad.
const VALUES: &str = r#"
name             | "web" "a b" "ünï"     | "" "all" "12" "a/b" "a,b" "-x" ".x" 3 null | "a\tb"
command          | "node x" ["a", "b c"] | "" [] [""] 3 null {} ["a", 1]             | "'"
cwd              | "." "/srv" ""         | 3 null []                                 |
env              | {} {"A": "x", "B": 2, "C": true} | [] "A=1" {"A": null} {"A": []}  | {"": "x"}
interpreter      | "node" "none"         | 3 null []                                 |
restart          | "always" "on-failure" | "sometimes" true 1 null                   |
max_restarts     | 0 3 "unlimited"       | "3" -1 1.5 null                           |
min_uptime       | "1s" "250ms" "0"      | "1" 1 "1 s" "s" null true | "9999999999999999d"
restart_delay    | "2s" "2s..1m"         | "2" 2 "..1m" null                         | "1m..2s"
stop_signal      | "TERM" "SIGINT" 15    | true null []                              | "NONE" 99
stop_reach       | "tree" "leader"       | "all" 1 null                              |
stop_timeout     | "5s" "1d"             | 5 "5" null                                |
escapees         | "kill" "keep"         | "all" true null                           |
look_alike       | "refuse" "ignore"     | "kill" false                              |
critical         | true false            | "true" 1 null                             |
stop_exit_codes  | [] 0 [0, 143] "0,143" | 256 -1 [true] {} "x"                      | "999"
cron             | "0 3 * * *" "@daily" null | 3 true []                             | "x"
max_memory       | "500M" "1G" 4096 null | "1.5G" "500MB" true []                    |
watch            | true false "src" ["a", "b"] | 3 {} [3]                            |
ignore_watch     | "*.log" ["a", "b"]    | true 3 {}                                 |
env_file         | ".env" ["a", "b"]     | 3 true {}                                 |
filter_env       | "AWS_*" ["A", "B"]    | 3 true {}                                 |
user             | "root" 0 null         | true [] {}                                |
group            | "root" 0 null         | true [] {}                                |
groups           | ["root"] "root" []    | true {}                                   |
umask            | "022" null            | true [] {}                                | "9"
limit            | "nofile=64" {"nofile": 64} ["nofile=64"] null | true                | "x=1"
oom_score        | -1000 0 1000 null     | 1001 -1001 "5" true 1.5                   |
no_new_privs     | true false            | "yes" null                                |
cap_drop         | "all" ["CHOWN"] null  | true                                      | "x"
cap_keep         | "CHOWN" ["CHOWN"] null | true                                     | "x"
io_class         | "idle" "best-effort:3" null | true []                             | "x"
cpu_affinity     | "0-3,6" [0, 1] 0 null | true                                      | "x"
nice             | -20 19 null           | 20 -21 "5" true 0.5                       |
memory_max       | "500M" 1000 null      | "lots" true []                            |
cpu_max          | "50%" "200%" null     | 50 "50" true []                           | "0%"
pids_max         | 100 null              | "100" -1 1.5 true                         |
listen           | "3000" 3000 ["web=127.0.0.1:80", "unix:/x"] | true {} [true]       | "x"
instances        | 4 "4" "max" -1 0 null | true [] 1.5 5000                          | "many"
port_range       | "3000-3003" null      | 3000 true []                              | "3-1"
instance_var     | "WORKER"              | 3 null ""                                 | "A=B"
increment_var    | "PORT" null           | 3 true ""                                 | "A=B"
namespace        | "blue" null           | 3 true ""                                 | "a/b"
no_node_preload  | true false            | 1 null                                    |
log_out          | "x.log" null          | 3 true ""                                 |
pid_file         | "x.pid" null          | 3 true ""                                 |
log_error        | "x.log" null          | 3 true ""                                 |
merge_logs       | true false            | "true" null                               |
no_logs          | true false            | "true" null                               |
log_max_size     | "10M" 0               | "10MB" true null                          |
log_keep         | 0 5                   | -1 "5" 1.5 null                           |
log_max_age      | "7d" null             | 7 "7" true                                |
log_compress     | "zstd" "gzip" null    | "xz" true                                 |
log_time         | "YYYY-MM-DD" null     | 3 [] {}                                   |
log_format       | "text" "json"         | "xml" true                                |
ready            | "exec" "notify" "fd:3" "tcp:80" "cmd:true" | 3 true null | "soon" "fd:1"
ready_timeout    | "30s"                 | 30 "30" null                              |
health           | "tcp:80" "cmd:true" "notify" null | 3 true []                     | "exec"
health_interval  | "10s"                 | 10 null                                   |
health_timeout   | "3s"                  | 3 null                                    |
health_retries   | 3                     | "3" -1 null                               |
health_start_period | "0s"               | 0 null                                    |
depends_on       | "a,b" ["a"] []        | 3 true null [3]                           | "a/b"
"#;

/// The columns of a row: the key, and values.
fn rows() -> impl Iterator<Item = (&'static str, [Vec<Value>; 3])> {
    VALUES.lines().filter(|line| !line.is_empty()).map(|line| {
        let mut columns = line.split('|');
        let key = columns.next().unwrap().trim();
        let mut values = || {
            let text = columns.next().unwrap_or_default();
            let values = serde_json::Deserializer::from_str(text).into_iter::<Value>();
            values.collect::<Result<Vec<_>, _>>().unwrap()
        };
        (key, [values(), values(), values()])
    })
}

/// What a text has to look like, by what stands for it in the help.
fn text(opt: &Opt) -> Value {
    let refusal = opt.parse(&mut spec(), "?").err().unwrap_or_default();
    if let Some(words) = refusal.strip_prefix("expected ") {
        let words = words.replace(" or ", ", ");
        let words: Vec<&str> = words.split(", ").collect();
        if words.len() > 1 && words.iter().all(|word| opt.parse(&mut spec(), word).is_ok()) {
            return json!({ "enum": words });
        }
    }
    const TIME: &str = "([0-9]+(ms|s|m|h|d)|0)";
    let pattern = match (opt.key, opt.value) {
        ("max_restarts", _) => return json!({ "const": "unlimited" }),
        ("restart_delay", _) => format!("{TIME}(\\.\\.{TIME})?"),
        ("stop_exit_codes", _) => "([0-9]+(, *[0-9]+)*)?".to_owned(),
        (_, "TIME") => TIME.to_owned(),
        ("cpu_max", _) => "[0-9]+%".to_owned(),
        (_, "SIZE") => "[0-9]+[KMGT]?".to_owned(),
        _ if opt.read(&mut spec(), &"".into()).is_ok() => return json!({ "type": "string" }),
        _ => return json!({ "type": "string", "minLength": 1 }),
    };
    json!({ "type": "string", "pattern": format!("^{pattern}$") })
}

fn number(opt: &Opt) -> Value {
    let (from, to) = match opt.key {
        "nice" => (-20, Some(19)),
        "oom_score" => (-1_000, Some(1_000)),
        "instances" => (-1_024, Some(1_024)),
        "stop_exit_codes" => (0, Some(255)),
        _ => (0, None),
    };
    let mut schema = json!({ "type": "integer", "minimum": from });
    to.into_iter().for_each(|to| schema["maximum"] = to.into());
    schema
}

fn spec() -> opm::service::spec::Spec {
    opm::service::spec::Spec::new(String::new(), Vec::new(), String::new())
}

/// The schema of an option's value: of the types that it is good with.
fn option(opt: &Opt, good: &[Value]) -> Value {
    let simple = |values: &[Value]| {
        let mut of = Vec::new();
        of.extend(values.iter().any(Value::is_string).then(|| text(opt)));
        of.extend(values.iter().any(Value::is_number).then(|| number(opt)));
        of
    };
    let mut any = simple(good);
    any.extend(good.iter().any(Value::is_boolean).then(|| json!({ "type": "boolean" })));
    any.extend(good.iter().any(Value::is_null).then(|| json!({ "type": "null" })));
    any.extend(good.iter().any(Value::is_object).then(|| json!({ "type": "object" })));
    if good.iter().any(Value::is_array) {
        let inner: Vec<Value> =
            good.iter().flat_map(|it| it.as_array().cloned()).flatten().collect();
        let items = simple(&inner);
        any.push(json!({ "type": "array", "items": { "anyOf": items } }));
    }
    let mut schema = if any.len() == 1 { any.remove(0) } else { json!({ "anyOf": any }) };
    schema["description"] = opt.help.replace('\n', " ").into();
    schema["default"] = opt.default();
    schema
}

fn schema() -> Value {
    let mut properties = Map::new();
    let words = json!({ "anyOf": [
        { "type": "string", "pattern": "[^ ]" },
        { "type": "array", "minItems": 1, "items": { "type": "string" },
          "allOf": [{ "not": { "items": { "maxLength": 0 } } }] },
    ]});
    let name = json!({
        "type": "string", "maxLength": 64, "pattern": "^[^-./,][^/,]*$",
        "not": { "pattern": "^([0-9]+|all)$" },
        "description": "what it is called; by default what its command is about",
    });
    let values = json!({ "type": ["string", "number", "boolean"] });
    properties.insert("name".into(), name);
    properties.insert("command".into(), words.clone());
    properties.insert("cwd".into(), json!({ "type": "string" }));
    properties.insert("env".into(), json!({ "type": "object", "additionalProperties": values }));
    properties.insert("interpreter".into(), json!({ "type": "string" }));
    properties.insert("interpreter_args".into(), words);
    let rows: Vec<_> = rows().collect();
    for opt in OPTIONS.iter().filter(|opt| opt.group != Group::Hidden && opt.key != "instance_of") {
        let row = rows.iter().find(|(key, _)| *key == opt.key);
        let (_, [good, ..]) = row.unwrap_or_else(|| panic!("no values for {}", opt.key));
        properties.insert(opt.key.into(), option(opt, good));
    }
    properties.insert("instance_of".into(), json!({ "type": ["string", "null"] }));
    json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "process file of opm",
        "type": "object",
        "required": ["services"],
        "additionalProperties": false,
        "properties": {
            "$schema": { "type": "string" },
            "services": { "type": "array", "items": {
                "type": "object",
                "required": ["command"],
                "additionalProperties": false,
                "properties": properties,
            }},
        },
    })
}

/// Whether opm takes it, without a word about a key that it does not know.
fn takes(document: &Value) -> bool {
    let source = Source {
        label: "f.json",
        directory: Path::new("/srv"),
        caller: Path::new("/srv"),
        naming: &|words, _| default_name(words),
        program: &|script, _, _, _| Ok(vec![script.to_owned()]),
        variable: &|_| None,
        host: "box",
        env: None,
    };
    parse(document.to_string().as_bytes(), &source).is_ok_and(|file| file.warnings.is_empty())
}

/// Says of each document whether it is valid by the schema.
const VALIDATE: &str = "import json, sys, jsonschema\n\
    schema, documents = json.load(sys.stdin)\n\
    jsonschema.Draft7Validator.check_schema(schema)\n\
    check = jsonschema.Draft7Validator(schema)\n\
    print(json.dumps([check.is_valid(one) for one in documents]))\n";

fn valid(schema: &Value, documents: &[Value]) -> Vec<bool> {
    let mut command = Command::new("/usr/bin/python3");
    command.args(["-c", VALIDATE]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let text = json!([schema, documents]).to_string();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    serde_json::from_slice(&output.stdout).unwrap()
}

fn file(fields: &[(&str, Value)]) -> Value {
    let mut service = json!({ "name": "web", "command": "x" });
    fields.iter().for_each(|(key, value)| service[*key] = value.clone());
    json!({ "services": [service] })
}

#[test]
fn the_schema_is_that_of_the_table() {
    let text = serde_json::to_string_pretty(&schema()).unwrap() + "\n";
    if std::env::var_os("OPM_GOLDEN").is_some_and(|word| word == "write") {
        return std::fs::write(PATH, text).unwrap();
    }
    let written = std::fs::read_to_string(PATH).unwrap_or_default();
    assert!(text == written, "{PATH} is another (refresh with make golden)");
}

#[test]
fn the_schema_and_the_parser_agree_about_every_key() {
    let mut cases: Vec<(Value, bool, bool)> = Vec::new();
    for (key, [good, bad, own]) in rows() {
        cases.extend(good.into_iter().map(|value| (file(&[(key, value)]), true, true)));
        cases.extend(bad.into_iter().map(|value| (file(&[(key, value)]), false, false)));
        cases.extend(own.into_iter().map(|value| (file(&[(key, value)]), true, false)));
    }
    let line = ("interpreter_args", json!("-u -x"));
    cases.push((file(&[("interpreter", "node".into()), line]), true, true));
    cases.push((file(&[("restrat", "never".into())]), false, false));
    cases.push((file(&[("stop-timeout", "1s".into())]), false, false));
    for (document, is_good) in [
        (json!({ "services": [] }), true),
        (json!({ "$schema": "file:///x", "services": [{ "command": ["sleep", "1"] }] }), true),
        (json!({ "services": {} }), false),
        (json!({ "services": [3] }), false),
        (json!({ "services": [{ "name": "web" }] }), false),
        (json!({ "service": [] }), false),
        (json!({}), false),
        (json!(3), false),
    ] {
        cases.push((document, is_good, is_good));
    }
    assert!(cases.len() > 300);
    let documents: Vec<Value> = cases.iter().map(|(document, ..)| document.clone()).collect();
    let found = valid(&schema(), &documents);
    let wrong = cases.iter().zip(found).filter_map(|((document, by_schema, by_us), found)| {
        let now = (found, takes(document));
        (now != (*by_schema, *by_us)).then(|| format!("{document}: (schema, opm) is {now:?}"))
    });
    assert_eq!(wrong.collect::<Vec<_>>().join("\n"), "");
}
