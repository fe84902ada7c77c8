//! Process files of others, as people have them, on the real kernel.
use crate::namespace::isolated;
use crate::rig::Rig;
use std::path::PathBuf;

/// Writes a file into the directory that commands run in.
fn write(rig: &Rig, name: &str, text: &str) -> PathBuf {
    let path = rig.dir.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, text).unwrap();
    path
}

/// Says its arguments, directory and some variables, and stays.
const SAY: &str = "const e = process.env;\n\
    console.log(JSON.stringify([process.argv.slice(2), process.cwd(), e.NODE_ENV, e.W_A]));\n\
    setInterval(() => {}, 1e6);\n";

/// The last line that the service wrote, once it is there.
fn said(rig: &Rig, name: &str) -> String {
    let log = rig.home.join(format!("logs/{name}-out.log"));
    rig.until(&format!("{name} speaks"), || {
        let text = std::fs::read_to_string(&log).ok()?;
        text.ends_with('\n').then(|| text.lines().last().unwrap().to_owned())
    })
}

#[test]
fn modules_are_evaluated_by_node_where_they_lie() {
    isolated(here!(), |rig| {
        write(rig, "app/say.js", SAY);
        let dir = rig.dir.join("app").display().to_string();
        let app = "{ name: 'web', script: './say.js', args: 'a \"b c\"',\n\
            env: { NODE_ENV: 'dev', W_A: 1 }, env_production: { NODE_ENV: 'prod' } }";
        for (file, text) in [
            (
                "a.config.js",
                format!("console.log('noise');\nmodule.exports = {{ apps: [{app}] }};"),
            ),
            ("b.config.cjs", format!("module.exports = [{app}];\nsetInterval(() => {{}}, 9999)")),
            ("c.config.mjs", format!("export const apps = [{app}];")),
            ("d.config.mjs", format!("export default async () => ({{ apps: [{app}] }});")),
            ("e.json", format!("[Object.assign({{}}, {app})] // script")),
        ] {
            let file = write(rig, &format!("app/{file}"), &text).display().to_string();
            rig.ok(&["start", &file]);
            assert_eq!(said(rig, "web"), format!(r#"[["a","b c"],"{dir}","dev","1"]"#), "{file}");
            rig.ok(&["restart", &file, "--env", "production"]);
            let expected = format!(r#"[["a","b c"],"{dir}","prod","1"]"#);
            rig.until("the other set", || (said(rig, "web") == expected).then_some(()));
            assert_eq!(rig.ok(&["remove", &file]), "web: removed\n");
            std::fs::remove_file(rig.home.join("logs/web-out.log")).unwrap();
        }
        for (text, reason) in [
            ("module.exports = {\n  apps: [,,}\n};", "line 2: SyntaxError: "),
            ("\n\nnope.apps", "line 3: ReferenceError: nope is not defined"),
            ("module.exports = { apps: [{ script: 'gone.js' }] }", "apps[0]: script: gone.js"),
            ("module.exports = { apps: 3 }", "apps: expected a list, found a number"),
            (
                "module.exports = { apps: [{ script: 'say.js', max_restarts: 'x' }] }",
                "say: max_res",
            ),
        ] {
            write(rig, "app/bad.config.js", text);
            let line = rig.refused(1, &["start", "app/bad.config.js"]);
            assert!(line.contains(&format!("app/bad.config.js: {reason}")), "{line}");
        }
        assert!(rig.rows().is_empty());
        let mut command = rig.command(&["start", "app/a.config.js"]);
        let ran = command.env("PATH", "/nowhere").output().unwrap();
        let said = String::from_utf8(ran.stderr).unwrap();
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.contains("is for node, which is not in PATH"), "{said}");
    });
}

#[test]
fn to_start_a_file_of_pm2s_again_restarts_and_takes_what_is_new() {
    isolated(here!(), |rig| {
        let file = |args: &str| {
            let text = format!(
                "// two\n[{{name: 'a', script: 'sleep', args: '{args}',}},\n\
                 {{name: 'b', script: 'sleep', args: '1000'}}]"
            );
            write(rig, "apps.json", &text);
        };
        file("1000");
        rig.ok(&["start", "apps.json", "--only", "b"]);
        let old = rig.row("b").pid.unwrap();
        rig.ok(&["start", "apps.json"]);
        assert_eq!((rig.row("a").restarts, rig.row("b").restarts), (0, 1));
        assert_ne!(rig.row("b").pid, Some(old));
        file("2000");
        // What is opm's own word for it changes nothing in silence.
        assert!(rig.refused(1, &["import", "apps.json"]).contains("it differs in command"));
        rig.ok(&["restart", "apps.json", "--only", "a"]);
        assert_eq!((rig.row("a").restarts, rig.row("b").restarts), (1, 1));
        assert_eq!(rig.info("a")["command"], "sleep 2000");
        let unknown = rig.refused(3, &["start", "apps.json", "--only", "a,c"]);
        assert!(unknown.contains("no service 'c' in it"), "{unknown}");
        assert_eq!(rig.ok(&["stop", "apps.json"]).lines().count(), 2);
        assert_eq!(rig.ok(&["remove", "apps.json", "--only", "a"]), "a: removed\n");
        rig.ok(&["restart", "apps.json"]);
        assert_eq!(rig.rows().len(), 2);
    });
}

#[test]
fn a_procfile_and_a_configuration_of_supervisords_are_started() {
    isolated(here!(), |rig| {
        write(rig, "Procfile", "web: sleep 1000\nline: echo $PORT > port && sleep 1000\n");
        rig.ok(&["start", "Procfile"]);
        let port = || std::fs::read_to_string(rig.dir.join("port")).ok().filter(|it| it.len() > 4);
        assert_eq!(rig.until("the port", port), "5100\n");
        assert_eq!(rig.ok(&["remove", "all"]).lines().count(), 2);
        let text = "[supervisord]\nnodaemon=true\n[program:x]\ncommand=sh -c \"echo $W > w; \
                    exec sleep 1000\" ; x\nenvironment=W=\"a b\"\nautorestart=true\n";
        write(rig, "etc/x.conf", text);
        rig.ok(&["start", "etc/x.conf"]);
        let word = || std::fs::read_to_string(rig.dir.join("w")).ok().filter(|it| it.len() > 3);
        assert_eq!(rig.until("the word", word), "a b\n");
        assert_eq!(rig.info("x")["policy"]["min_uptime"], "1s");
    });
}
