//! Accounts, users, roles, policies and access keys.
