//! Certificates: the cluster's authority and who is who.
