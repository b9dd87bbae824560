//! Writes the generated files anew.

use std::process::ExitCode;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let out = rekindle_wire_types::generated();
    std::fs::create_dir_all(&out)?;
    for (name, text) in rekindle_wire_types::generate(&rekindle_wire_types::installed_models()?)? {
        std::fs::write(out.join(name), text)?;
    }
    Ok(())
}
