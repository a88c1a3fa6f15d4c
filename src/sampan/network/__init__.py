"""What a node's network does beyond carrying packets: names, services, policies. The links and
addresses themselves are the runtime's (``node.runtime.native``)."""
