//! `wallex config print|check`: what the settings are, where they come from, whether they will do.

use crate::config::{self, Overrides};

#[derive(Debug, clap::Subcommand)]
pub enum ConfigCommand {
    /// Every setting with its value and where it comes from; secrets are not shown
    Print {
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Whether the service would start with these settings
    Check,
}

pub fn run(command: &ConfigCommand) -> anyhow::Result<bool> {
    match command {
        ConfigCommand::Print { json } => {
            let settings = config::explain(&Overrides::new())?;
            super::output::show(*json, &settings, |settings| {
                for setting in settings {
                    println!("{}={}  # {}", setting.name, setting.value, setting.origin);
                }
            })
        }
        ConfigCommand::Check => {
            super::settings()?;
            println!("the settings are usable");
            Ok(true)
        }
    }
}
