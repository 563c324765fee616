"""WebShop (arXiv 2207.01206): shopping by text, over an embedded catalogue or the official files."""

from sglib.envs.webshop.card import ENVIRONMENT
from sglib.envs.webshop.catalogue import Catalogue, Product, Purchase, Shop, catalogue
from sglib.envs.webshop.engine import ShopEnv
from sglib.envs.webshop.scores import Terms, terms

__all__ = ["ENVIRONMENT", "Catalogue", "Product", "Purchase", "Shop", "ShopEnv", "Terms", "catalogue", "terms"]
