//! The binary `tidegate`.

use std::process::ExitCode;

use tidegate::{
    cli::{self, Command},
    config,
};

fn main() -> ExitCode {
    let sources = match cli::parse(std::env::args_os()) {
        Ok(Command::Start(sources)) => sources,
        Ok(Command::Tool(tool)) => return tool.run(),
        Err(error) => error.exit(),
    };
    match config::load(&sources) {
        Ok(_) => {
            eprintln!("the configuration is valid, but this build serves no protocol");
            ExitCode::from(cli::RUNTIME_FAILURE)
        }
        Err(errors) => {
            eprintln!("{errors}");
            ExitCode::from(cli::USAGE_ERROR)
        }
    }
}
