//! The variables of the container's processes.

use agent_proto::AppSpec;

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Defaults, then the image's, then the MicroVM's; of two of a name the later one counts.
pub(crate) fn of<'a>(spec: &'a AppSpec, home: &'a str) -> Vec<(&'a str, &'a str)> {
    let defaults = [("PATH", DEFAULT_PATH), ("HOME", home), ("HOSTNAME", spec.hostname.as_str())];
    let given = spec.config.env.iter().chain(&spec.env).filter_map(|pair| pair.split_once('='));
    defaults.into_iter().chain(given).collect()
}

/// Has `exec` look programs up where the variables say: it takes this process's own PATH.
pub(crate) fn search_path(variables: &[(&str, &str)]) {
    if let Some((_, path)) = variables.iter().rev().find(|(name, _)| *name == "PATH") {
        // SAFETY: only helpers do this, which have one thread.
        unsafe { std::env::set_var("PATH", path) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_microvms_variables_come_after_the_images_and_those_after_the_defaults() {
        let mut spec = AppSpec { hostname: "h".into(), ..AppSpec::default() };
        spec.config.env = vec!["PATH=/image".into(), "A=1=2".into(), "nonsense".into()];
        spec.env = vec!["A=3".into()];
        let variables = of(&spec, "/root");
        assert_eq!(variables[1..3], [("HOME", "/root"), ("HOSTNAME", "h")]);
        assert_eq!(variables[3..], [("PATH", "/image"), ("A", "1=2"), ("A", "3")]);
    }
}
