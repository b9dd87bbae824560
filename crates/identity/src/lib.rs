//! Who is who: accounts, users, roles and their credentials; IAM and STS as their clients see them.
