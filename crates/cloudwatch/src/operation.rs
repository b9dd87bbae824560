//! The operations, and what the audit log says of each.

/// An operation that is answered here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Makes a group.
    CreateLogGroup,
    /// Makes a stream.
    CreateLogStream,
    /// Removes a group.
    DeleteLogGroup,
    /// Removes a stream.
    DeleteLogStream,
    /// Has a group keep its events for ever.
    DeleteRetentionPolicy,
    /// Lists groups.
    DescribeLogGroups,
    /// Lists streams.
    DescribeLogStreams,
    /// Finds events in a group.
    FilterLogEvents,
    /// Reads a stream.
    GetLogEvents,
    /// Tags of a group.
    ListTagsForResource,
    /// Adds events to a stream.
    PutLogEvents,
    /// Has a group keep its events for some days.
    PutRetentionPolicy,
    /// Sends events as they come.
    StartLiveTail,
    /// Gives a group tags.
    TagResource,
    /// Takes tags from a group.
    UntagResource,
}

const ALL: [(Operation, &str); 15] = [
    (Operation::CreateLogGroup, "CreateLogGroup"),
    (Operation::CreateLogStream, "CreateLogStream"),
    (Operation::DeleteLogGroup, "DeleteLogGroup"),
    (Operation::DeleteLogStream, "DeleteLogStream"),
    (Operation::DeleteRetentionPolicy, "DeleteRetentionPolicy"),
    (Operation::DescribeLogGroups, "DescribeLogGroups"),
    (Operation::DescribeLogStreams, "DescribeLogStreams"),
    (Operation::FilterLogEvents, "FilterLogEvents"),
    (Operation::GetLogEvents, "GetLogEvents"),
    (Operation::ListTagsForResource, "ListTagsForResource"),
    (Operation::PutLogEvents, "PutLogEvents"),
    (Operation::PutRetentionPolicy, "PutRetentionPolicy"),
    (Operation::StartLiveTail, "StartLiveTail"),
    (Operation::TagResource, "TagResource"),
    (Operation::UntagResource, "UntagResource"),
];

impl Operation {
    /// By its name, as it stands in `X-Amz-Target`.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        ALL.iter().find(|(_, known)| *known == name).map(|(operation, _)| *operation)
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        ALL.iter().find(|(operation, _)| *operation == self).map_or("", |(_, name)| name)
    }

    /// Whether it changes nothing.
    #[must_use]
    pub fn is_read(self) -> bool {
        ["Describe", "Filter", "Get", "List", "Start"].iter().any(|start| self.name().starts_with(start))
    }

    /// Whether it is about events rather than about where they are kept (CloudTrail's data events).
    #[must_use]
    pub fn is_data(self) -> bool {
        matches!(self, Self::FilterLogEvents | Self::GetLogEvents | Self::PutLogEvents | Self::StartLiveTail)
    }
}
