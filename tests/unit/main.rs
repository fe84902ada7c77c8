//! Claims about single functions that others may call, by module.
#![expect(
    clippy::unwrap_used,
    reason = "a test's way to fail; clippy exempts test functions only, not what they call"
)]
mod daemon_adopt;
mod daemon_ledger_load;
mod daemon_logs;
mod daemon_server_startup;
mod init_args;
mod process_command;
mod process_identity;
mod process_journal_format;
mod process_mark;
mod process_shell;
mod process_stat;
mod service_context;
mod service_cron;
mod service_environment;
mod service_glob;
mod service_json;
mod service_listen;
mod service_name;
mod service_options;
mod service_order;
mod service_policy;
mod service_probe;
mod service_resources;
mod service_selector;
mod service_time;
mod service_units;
mod sys_block;
mod sys_guarded;
mod sys_held;
mod sys_home;
mod sys_listeners;
mod sys_memory;
mod sys_namespace;
mod sys_output_of;
mod sys_receipt;
mod sys_sockets;
mod sys_spawn;
mod sys_token;
mod sys_zone;
mod wire_frame;
mod wire_schema;
