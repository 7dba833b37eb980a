"""A page to drop pictures on.

`ram-page` serves it. It needs the extra `page`: nothing else in ram_client imports this package.
"""
