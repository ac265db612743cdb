"""The domain name system, without sockets.

    names     names as they stand in packets, and as text
    wire      packets read and written
    zone      what the cluster knows: services and tasks → answers
    respond   a query → an answer, or the question that somebody else must be asked
    cache     what somebody else answered
    resolvers the node's own resolv.conf

One rule: whatever comes from outside is read here, and however wrong it is, no error leaves but `names.MalformedError`,
which `wire` turns into the answer that the sender gets.
"""
