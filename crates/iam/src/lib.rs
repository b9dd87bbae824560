//! The policy language: JSON policies with Allow and Deny, and what they decide. Pure.
