//! What is known of the programs that run other programs: which of their words are theirs.
//!
//! Data only. An option that is not listed takes no value, which is right for most of them.

/// A program that runs the command that follows its own options.
pub(super) struct Wrapper {
    pub(super) names: &'static [&'static str],
    /// The first word after the name must be one of these, if there are any: `bundle exec`.
    pub(super) verbs: &'static [&'static str],
    /// Short options that take a value.
    pub(super) values: &'static str,
    /// Long options whose value may be the next word.
    pub(super) long: &'static [&'static str],
    /// Words before the command that are neither options nor part of it: `timeout 5`.
    pub(super) skip: usize,
    /// A short option whose value is a line for a shell: `su -c`.
    pub(super) line: Option<char>,
}

const PLAIN: Wrapper =
    Wrapper { names: &[], verbs: &[], values: "", long: &[], skip: 0, line: None };

/// The `-S` of `env` has code of its own.
pub(super) const WRAPPERS: &[Wrapper] = &[
    Wrapper {
        names: &[
            "nohup",
            "setsid",
            "command",
            "builtin",
            "catatonit",
            "unbuffer",
            "dbus-run-session",
            "catchsegv",
            "busybox",
            "valgrind",
            "with-contenv",
            "cross-env",
            "chronic",
            "rlwrap",
            "caffeinate",
        ],
        ..PLAIN
    },
    Wrapper { names: &["env"], values: "uC", long: &["unset", "chdir"], ..PLAIN },
    Wrapper { names: &["stdbuf"], values: "ioe", long: &["input", "output", "error"], ..PLAIN },
    Wrapper { names: &["exec"], values: "a", ..PLAIN },
    Wrapper { names: &["time", "gtime"], values: "fo", long: &["format", "output"], ..PLAIN },
    Wrapper { names: &["tini"], values: "pe", ..PLAIN },
    Wrapper { names: &["dumb-init"], values: "r", long: &["rewrite"], ..PLAIN },
    Wrapper { names: &["nice"], values: "n", long: &["adjustment"], ..PLAIN },
    Wrapper { names: &["ionice"], values: "cn", long: &["class", "classdata"], ..PLAIN },
    Wrapper {
        names: &["timeout", "gtimeout"],
        values: "sk",
        long: &["signal", "kill-after"],
        skip: 1,
        ..PLAIN
    },
    Wrapper { names: &["taskset"], skip: 1, ..PLAIN },
    Wrapper {
        names: &["chrt"],
        values: "TPD",
        long: &["sched-runtime", "sched-period", "sched-deadline"],
        skip: 1,
        ..PLAIN
    },
    Wrapper {
        names: &["sudo", "doas"],
        values: "ugpCDhrtTRU",
        long: &[
            "user",
            "group",
            "prompt",
            "chdir",
            "host",
            "role",
            "type",
            "chroot",
            "other-user",
            "close-from",
            "command-timeout",
        ],
        ..PLAIN
    },
    Wrapper {
        names: &["setpriv", "prlimit"],
        long: &[
            "reuid",
            "regid",
            "ruid",
            "rgid",
            "euid",
            "egid",
            "groups",
            "inh-caps",
            "ambient-caps",
            "bounding-set",
            "securebits",
            "pdeathsig",
        ],
        ..PLAIN
    },
    Wrapper {
        names: &["chroot", "gosu", "su-exec", "setuidgid", "s6-setuidgid", "envdir", "s6-envdir"],
        skip: 1,
        ..PLAIN
    },
    Wrapper { names: &["chpst"], values: "uUbepm/onlfcr", ..PLAIN },
    Wrapper {
        names: &["su", "runuser", "script"],
        values: "ugGsw",
        long: &["user", "group", "shell"],
        skip: 1,
        line: Some('c'),
        ..PLAIN
    },
    Wrapper {
        names: &["flock"],
        values: "wE",
        long: &["wait", "timeout", "conflict-exit-code"],
        skip: 1,
        line: Some('c'),
        ..PLAIN
    },
    Wrapper { names: &["strace"], values: "oespaEuSPbIOX", ..PLAIN },
    Wrapper { names: &["numactl"], values: "NmCipl", ..PLAIN },
    Wrapper { names: &["cpulimit"], values: "lpe", ..PLAIN },
    Wrapper {
        names: &["xvfb-run"],
        values: "nsfewp",
        long: &["server-num", "server-args", "auth-file", "error-file"],
        ..PLAIN
    },
    Wrapper {
        names: &["systemd-run", "systemd-cat", "systemd-inhibit"],
        values: "puEtMHC",
        long: &["unit", "property", "slice", "uid", "gid", "setenv", "description", "identifier"],
        ..PLAIN
    },
    Wrapper {
        names: &["npx", "bunx", "pnpx", "uvx", "pipx"],
        values: "p",
        long: &["package", "from", "with", "python"],
        line: Some('c'),
        ..PLAIN
    },
    Wrapper {
        names: &["npm", "pnpm", "yarn"],
        verbs: &["exec", "x", "dlx"],
        values: "p",
        long: &["package"],
        line: Some('c'),
        ..PLAIN
    },
    Wrapper {
        names: &["bundle", "poetry", "pipenv", "uv", "pdm", "hatch", "rye", "pipx", "doppler"],
        verbs: &["exec", "run"],
        values: "pc",
        long: &["with", "python", "env-file", "project", "config", "directory", "extra"],
        ..PLAIN
    },
];

/// A program that runs a script, which is its first word that is no option.
pub(super) struct Interpreter {
    /// Without a version: `python` stands for `python3.11` too.
    pub(super) names: &'static [&'static str],
    /// Words before the script that only say what to do with it: `node inspect x.js`.
    pub(super) verbs: &'static [&'static str],
    /// Short options that take a value, in the same word or the next.
    pub(super) values: &'static str,
    /// Short options that take a value in the same word only.
    pub(super) glued: &'static str,
    /// Short options whose value is what runs: `-m http.server`.
    pub(super) subject: &'static str,
    /// Short options whose value is code: there is no script.
    pub(super) code: &'static str,
    /// Long options whose value may be the next word; `eval` and `print` mean code everywhere.
    pub(super) long: &'static [&'static str],
    /// A word is a script only with an extension: `bun run dev` runs no file called dev.
    pub(super) by_extension: bool,
}

const ANY: Interpreter = Interpreter {
    names: &[],
    verbs: &[],
    values: "",
    glued: "",
    subject: "",
    code: "",
    long: &[],
    by_extension: false,
};

const NODE_LONG: &[&str] = &[
    "require",
    "import",
    "loader",
    "experimental-loader",
    "env-file",
    "env-file-if-exists",
    "conditions",
    "title",
    "input-type",
    "inspect-port",
    "openssl-config",
    "redirect-warnings",
    "icu-data-dir",
    "diagnostic-dir",
    "watch-path",
    "disable-warning",
    "project",
    "tsconfig",
    "max-old-space-size",
    "max-http-header-size",
    "stack-trace-limit",
    "unhandled-rejections",
];

pub(super) const INTERPRETERS: &[Interpreter] = &[
    Interpreter {
        names: &["node", "nodejs", "iojs", "tsx", "ts-node", "babel-node"],
        verbs: &["inspect", "debug", "watch"],
        values: "rCPO",
        code: "ep",
        long: NODE_LONG,
        ..ANY
    },
    Interpreter {
        names: &["deno", "bun"],
        verbs: &["run", "serve"],
        values: "c",
        code: "e",
        long: &["config", "import-map", "preload", "env-file", "cwd", "lock", "cert", "location"],
        by_extension: true,
        ..ANY
    },
    Interpreter {
        names: &["python", "pypy", "pythonw", "ipython", "micropython", "jython"],
        values: "WXQ",
        subject: "m",
        code: "c",
        long: &["check-hash-based-pycs"],
        ..ANY
    },
    Interpreter {
        names: &["ruby", "jruby", "truffleruby"],
        values: "IrCE",
        glued: "WKFxTi0",
        code: "e",
        long: &["encoding", "external-encoding", "internal-encoding"],
        ..ANY
    },
    Interpreter { names: &["perl"], values: "I", glued: "iFCDdMmx0V", code: "eE", ..ANY },
    Interpreter {
        names: &["php", "php-cgi"],
        values: "Stcdz",
        subject: "fF",
        code: "rRBE",
        long: &["php-ini", "define", "server", "docroot"],
        ..ANY
    },
    Interpreter {
        names: &["lua", "luajit", "texlua", "tarantool"],
        values: "el",
        glued: "jO",
        ..ANY
    },
    Interpreter {
        names: &["dotnet", "mono", "wine"],
        verbs: &["exec"],
        long: &["runtimeconfig", "depsfile", "additionalprobingpath", "fx-version", "roll-forward"],
        by_extension: true,
        ..ANY
    },
    Interpreter {
        names: &[
            "Rscript",
            "julia",
            "elixir",
            "escript",
            "tclsh",
            "wish",
            "expect",
            "groovy",
            "racket",
            "guile",
            "scheme",
            "sbcl",
            "ocaml",
            "crystal",
            "pwsh",
            "osascript",
        ],
        values: "Lp",
        code: "e",
        by_extension: true,
        ..ANY
    },
];

/// Shells: what they run matters, never they themselves.
pub(super) const SHELLS: &[&str] = &[
    "sh", "bash", "dash", "zsh", "ksh", "ksh93", "mksh", "lksh", "ash", "yash", "fish", "csh",
    "tcsh", "rbash", "posh", "hush", "elvish", "nu", "xonsh",
];

/// Options of `java` whose value is the next word.
pub(super) const JAVA_VALUES: &[&str] = &[
    "-cp",
    "-classpath",
    "--class-path",
    "-p",
    "--module-path",
    "--upgrade-module-path",
    "--add-modules",
    "--add-opens",
    "--add-exports",
    "--add-reads",
    "--patch-module",
    "--limit-modules",
    "--enable-native-access",
    "--source",
    "--illegal-native-access",
];

/// Reserved words that may stand before a command.
pub(super) const PREFIXES: &[&str] =
    &["!", "{", "}", "do", "done", "elif", "else", "esac", "fi", "if", "then", "until", "while"];

/// Reserved words that make the words after them something else than a command.
pub(super) const HEADERS: &[&str] = &["for", "case", "select", "function", "[["];

/// What only a shell can do, to itself: it starts no process.
pub(super) const SILENT: &[&str] = &[
    ".", ":", "[", "alias", "break", "cd", "continue", "declare", "exit", "export", "false",
    "getopts", "hash", "jobs", "let", "local", "popd", "pushd", "read", "readonly", "return",
    "set", "shift", "shopt", "source", "test", "trap", "true", "type", "ulimit", "umask",
    "unalias", "unset", "wait",
];

/// Programs that prepare, pause or filter: beside any other command they are not the subject.
pub(super) const MODEST: &[&str] = &[
    "awk", "basename", "cat", "chmod", "chown", "cp", "cut", "date", "dirname", "echo", "find",
    "grep", "head", "id", "install", "kill", "killall", "ln", "logger", "ls", "mkdir", "mktemp",
    "mv", "pkill", "printf", "pwd", "rm", "rmdir", "sed", "sleep", "sort", "sync", "tail", "tee",
    "touch", "tr", "uname", "wc", "which",
];

/// Options whose value is a file that is only read: `gunicorn -c conf.py` is about gunicorn.
pub(super) const CONFIG: &[&str] =
    &["-c", "-C", "--config", "--conf", "--configuration", "--config-file", "--config-path"];

/// Extensions of scripts, in lower case.
pub(super) const SCRIPT_EXTENSIONS: &[&str] = &[
    "js", "mjs", "cjs", "jsx", "ts", "mts", "cts", "tsx", "py", "pyc", "pyw", "pyz", "sh", "bash",
    "zsh", "fish", "ksh", "csh", "rb", "pl", "psgi", "php", "phar", "lua", "r", "jl", "tcl", "exs",
    "escript", "groovy", "rkt", "scm", "ps1", "go",
];

/// Extensions of programs that something else runs, or that say nothing in a name.
pub(super) const PROGRAM_EXTENSIONS: &[&str] = &["jar", "war", "dll", "exe", "appimage", "bin"];

/// Programs that start others in a session of PAM.
pub(super) const MARK_REMOVERS: &[&str] =
    &["su", "sudo", "runuser", "login", "doas", "pkexec", "machinectl"];
