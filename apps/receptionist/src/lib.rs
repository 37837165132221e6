//! A multi-tenant phone receptionist.
