//! Which operations of which models are Rekindle's, and how their structures are grouped in Rust.

use crate::model::{Model, Operation};

/// A service and what is taken of it.
#[derive(Debug)]
pub(crate) struct Service {
    /// Variant of `Family`, in Rust.
    pub(crate) family: &'static str,
    /// Module of the generated code.
    pub(crate) module: &'static str,
    /// Where the model is, below botocore's `data` or the directory of our own.
    pub(crate) model: &'static str,
    /// Whose it is.
    pub(crate) origin: Origin,
    /// Only operations whose path begins so.
    pub(crate) paths: &'static str,
    /// Members that several structures share, which become one Rust structure within them.
    pub(crate) groups: &'static [Group],
}

/// Whose a model is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// AWS's, from botocore.
    Botocore,
    /// Rekindle's own, for what AWS has nothing for.
    Own,
}

/// Members of `of` that make up one Rust structure wherever all of them are found together.
#[derive(Debug)]
pub(crate) struct Group {
    /// The Rust structure.
    pub(crate) name: &'static str,
    /// The field that holds it.
    pub(crate) field: &'static str,
    /// The structure that shows what the members are.
    pub(crate) of: &'static str,
    /// The first of them in the model's order.
    pub(crate) first: &'static str,
    /// The last of them.
    pub(crate) last: &'static str,
}

impl Service {
    /// Its operations by name, in the order of their names.
    pub(crate) fn operations<'m>(
        &self,
        model: &'m Model,
    ) -> impl Iterator<Item = (&'m String, &'m Operation)> {
        let paths = self.paths;
        model.operations.iter().filter(move |(_, of)| of.http.request_uri.starts_with(paths))
    }

    /// The shapes that the operations' inputs and outputs are made of.
    pub(crate) fn shapes(&self, model: &Model) -> Vec<String> {
        let roots = self.operations(model).flat_map(|(_, of)| [Some(&of.input), of.output.as_ref()]);
        model.reachable(roots.flatten().map(|root| root.shape.clone()))
    }
}

/// Everything that is generated.
pub(crate) const SERVICES: [Service; 3] = [
    Service {
        family: "Microvms",
        module: "microvms",
        model: "lambda-microvms/2025-09-09",
        origin: Origin::Botocore,
        paths: "/",
        groups: &[
            Group {
                name: "ImageConfig",
                field: "config",
                of: "CreateMicrovmImageRequest",
                first: "baseImageArn",
                last: "kmsKeyIdentifier",
            },
            Group {
                name: "MicrovmImageSummary",
                field: "summary",
                of: "MicrovmImageSummary",
                first: "imageArn",
                last: "createdAt",
            },
            Group {
                name: "MicrovmImageBuildSummary",
                field: "summary",
                of: "MicrovmImageBuildSummary",
                first: "imageArn",
                last: "createdAt",
            },
        ],
    },
    Service {
        family: "Core",
        module: "connectors",
        model: "lambda-core/2026-04-30",
        origin: Origin::Botocore,
        paths: "/2026-04-04/network-connectors",
        groups: &[],
    },
    Service {
        family: "Endpoints",
        module: "endpoints",
        model: "rekindle/2026-11-29",
        origin: Origin::Own,
        paths: "/",
        groups: &[],
    },
];
