"""Every kind of task once, to try a machine or a cluster with."""
