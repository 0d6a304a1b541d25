//! The binary `tidegate`.

use std::process::ExitCode;

use tidegate::{
    cli::{self, Command},
    server,
};

fn main() -> ExitCode {
    match cli::parse(std::env::args_os()) {
        Ok(Command::Start(sources)) => server::run(&sources),
        Ok(Command::Tool(tool)) => tool.run(),
        Err(error) => error.exit(),
    }
}
