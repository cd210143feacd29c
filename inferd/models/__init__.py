"""The models of a tenant, as clients read them from its topics and write them there."""
